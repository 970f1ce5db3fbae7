"""The disk that every virtual machine begins with: Debian as it comes, made once and kept.

Debian's packages are fetched from the usual mirrors (http_proxy is heeded). Kept in
$XDG_CACHE_HOME/fleetctl-lab/vm-KEY, where KEY names this recipe: another recipe is another image. Root only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from fleet_lab.host import program

SUITE = "bookworm"
# What a bare Debian server has, and nothing for our sake but python3-venv, which docs/hosts.md asks for.
PACKAGES = (
    *(
        "systemd",
        "systemd-sysv",
        "udev",
        "dbus",
        "libpam-systemd",
        "openssh-server",
        "sudo",
        "python3",
        "python3-venv",
    ),
    *("iproute2", "procps", "kmod", "linux-image-cloud-amd64", "initramfs-tools"),
)
DISK_BYTES = 8 << 30
USER = "ops"
# Who a machine is comes on a second disk, a tar file, as a cloud's image has it: name, address, keys.
SEED = """[Unit]
Description=Name, address and keys of this machine
DefaultDependencies=no
After=systemd-remount-fs.service
Before=sysinit.target systemd-networkd.service systemd-tmpfiles-setup.service
ConditionPathExists=/dev/vdb

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/tar -C / -xf /dev/vdb
ExecStart=/bin/hostname -F /etc/hostname

[Install]
WantedBy=sysinit.target
"""
# Runs in the new system as root.
RECIPE = f"""set -eu
useradd -m -s /bin/bash {USER}
echo '{USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{USER}
printf '%s' "$SEED" > /etc/systemd/system/seed.service
systemctl enable -q seed.service systemd-networkd.service
systemctl mask -q systemd-networkd-wait-online.service apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer \\
    e2scrub_reap.service fstrim.timer dpkg-db-backup.timer getty@tty1.service systemd-pstore.service
rm -f /etc/ssh/ssh_host_*
: > /etc/machine-id
echo '/dev/vda / ext4 errors=remount-ro 0 1' > /etc/fstab
sed -i 's/^MODULES=.*/MODULES=list/; s/^COMPRESS=.*/COMPRESS=lz4/' /etc/initramfs-tools/initramfs.conf
printf 'virtio_pci\\nvirtio_blk\\nvirtio_net\\nvirtio_rng\\next4\\nbutton\\n' > /etc/initramfs-tools/modules
update-initramfs -u
rm -rf /usr/share/doc/* /usr/share/man/* /var/cache/apt/archives/*.deb
"""


@dataclass(frozen=True)
class Image:
    """`disk` is the root file system; nobody writes to it."""

    disk: Path
    kernel: Path
    initrd: Path


def image() -> Image:
    """The image of this recipe, made now (two minutes) if it is not there. Raises RuntimeError with what failed."""
    folder = cache() / f"vm-{_key()}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            part = folder.with_name(f".{folder.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(mode=0o755)
            _make(part)
            part.rename(folder)
    return Image(folder / "disk", folder / "vmlinuz", folder / "initrd")


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "fleetctl-lab"


def _key() -> str:
    words = (SUITE, *PACKAGES, str(DISK_BYTES), SEED, RECIPE)
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


def _make(folder: Path) -> None:
    root = folder / "root"
    told = {**os.environ, "SEED": SEED, "RECIPE": RECIPE}
    hook = ['--customize-hook=chroot "$1" sh -c "$RECIPE"']
    _run(
        [
            program("mmdebstrap"),
            "--variant=minbase",
            f"--include={','.join(PACKAGES)}",
            *hook,
            SUITE,
            str(root),
        ],
        told,
    )
    for name, found in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
        [path] = (root / "boot").glob(found)
        shutil.copyfile(path, folder / name)
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(DISK_BYTES)
    _run([program("mkfs.ext4"), "-q", "-F", "-d", str(root), str(disk)], dict(os.environ))
    shutil.rmtree(root)


def _run(argv: list[str], env: dict[str, str]) -> None:
    done = subprocess.run(argv, env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv[:2])} ... ended with {done.returncode}:\n{done.stderr[-3000:]}")
