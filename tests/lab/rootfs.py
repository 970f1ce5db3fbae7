#!/usr/bin/env python3
"""Make the root folder from which hosts with systemd boot (fleet_lab/systemd.py). Root only; a minute, 160 MB.

rootfs.py [FOLDER]      default: .venv/rootfs/bookworm, or FLEET_LAB_ROOTFS; what is there and whole is left alone
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from fleet_lab.systemd import ROOTFS, SUDO_PASSWORD, whole

PACKAGES = "systemd,systemd-sysv,dbus,openssh-server,python3,sudo,libpam-systemd,procps"
MIRROR = "http://deb.debian.org/debian"

# ops: sudo without a password; guarded: with one; plain: none.
PREPARE = f"""set -e
for user in ops guarded plain; do useradd -m -s /bin/bash $user; done
echo guarded:{SUDO_PASSWORD} | chpasswd
printf 'ops ALL=(ALL) NOPASSWD: ALL\\nguarded ALL=(ALL) ALL\\n' > /etc/sudoers.d/lab
chmod 440 /etc/sudoers.d/lab
apt-get clean
rm -rf /var/lib/apt/lists/* /usr/share/doc /usr/share/locale /usr/share/man /etc/ssh/ssh_host_*
"""


def main() -> int:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOTFS
    if whole(folder):
        return 0
    if os.geteuid() != 0:
        print(f"rootfs.py: making {folder} needs root", file=sys.stderr)  # noqa: T201
        return 1
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    steps = [
        ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", str(part), MIRROR],
        ["chroot", str(part), "sh", "-c", PREPARE],
    ]
    for argv in steps:
        done = subprocess.run(argv, capture_output=True, text=True)
        if done.returncode:
            print(f"rootfs.py: {argv[0]} failed: {(done.stdout + done.stderr)[-2000:]}", file=sys.stderr)  # noqa: T201
            return 1
    (part / "etc/fleet-lab").touch()
    shutil.rmtree(folder, ignore_errors=True)
    part.rename(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
