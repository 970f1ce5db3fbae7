#!/bin/sh
# Brings the system programs the tests use, installing with apt-get only what is missing.
#
#     make/packages.sh PROGRAM...       e.g. sshd ssh-keygen cron ip virsh curl
#
# Root, or sudo that asks no password, installs them; anyone else gets them unpacked under .venv (unpack.sh).
set -eu
cd "$(dirname "$0")/.."
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:$PWD/.venv/debian/run"

package_of() {
    case $1 in
        sshd) echo openssh-server ;;
        ssh | ssh-keygen | ssh-keyscan | ssh-agent) echo openssh-client ;;
        cron) echo cron ;;
        ip) echo iproute2 ;;
        virsh) echo libvirt-clients ;;
        libvirtd) echo libvirt-daemon ;; # without -system: the program alone, no service
        libvirt-qemu) echo libvirt-daemon-driver-qemu ;; # no program: the part of libvirtd that starts machines
        qemu-system-x86_64) echo qemu-system-x86 ;;
        qemu-img) echo qemu-utils ;;
        mmdebstrap) echo mmdebstrap ;;
        mkfs.ext4) echo e2fsprogs ;;
        ipmitool) echo ipmitool ;;
        ipmi_sim) echo openipmi ;;
        curl) echo curl ;;
        ps) echo procps ;;
        sudo) echo sudo ;;
        haproxy) echo haproxy ;;
        debootstrap) echo debootstrap ;;
        systemd-nspawn) echo systemd-container ;;
        ensurepip) echo python3-venv ;; # a module of the environment's Python, which Debian packs by itself
        *) echo "make: packages.sh knows no program $1" >&2; return 1 ;;
    esac
}

is_there() {
    case $1 in
        ensurepip) .venv/bin/python -c 'import ensurepip' 2>/dev/null ;;
        libvirt-qemu) ls /usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so >/dev/null 2>&1 ;;
        *) command -v "$1" >/dev/null 2>&1 ;;
    esac
}

missing=
for program in "$@"; do
    package=$(package_of "$program")
    is_there "$program" && continue
    case " $missing " in *" $package "*) ;; *) missing="$missing $package" ;; esac
done
[ -n "$missing" ] || exit 0

line="apt-get install -y$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "make: the tests need these Debian packages' programs and this system has no apt-get:$missing" >&2
    exit 1
fi
if [ "$(id -u)" = 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    # Python finds its ensurepip only where Debian puts it: the one test that needs it is skipped.
    missing=$(echo "$missing" | sed 's/ python3-venv//')
    [ -n "$missing" ] || exit 0
    exec make/unpack.sh "$missing"
fi

echo "make: installing for the tests:$missing" >&2
new_sshd=
new_haproxy=
case " $missing " in *" openssh-server "*) new_sshd=yes ;; esac
case " $missing " in *" haproxy "*) new_haproxy=yes ;; esac
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! { $as_root apt-get update && $as_root env DEBIAN_FRONTEND=noninteractive $line --no-install-recommends; } >"$log" 2>&1 </dev/null; then
    tail -n 20 "$log" >&2
    echo "make: that failed; as root, run: apt-get update && $line" >&2
    exit 1
fi
# The tests start SSH servers of their own on loopback ports. A machine that had no SSH server is not left with one
# listening on port 22.
if [ -n "$new_sshd" ] && [ -d /run/systemd/system ]; then
    $as_root systemctl disable --now ssh.service ssh.socket >/dev/null 2>&1 || true
    echo "make: openssh-server is installed and its service left disabled: the tests start their own" >&2
fi
if [ -n "$new_haproxy" ] && [ -d /run/systemd/system ]; then
    $as_root systemctl disable --now haproxy.service >/dev/null 2>&1 || true
    echo "make: haproxy is installed and its service left disabled: the tests start their own" >&2
fi
