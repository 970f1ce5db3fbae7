"""An account of its own for a host: an ordinary user, whom sudo asks for a password, or not, or refuses. Root only.

The host's sshd runs in a mount namespace with its own /etc/passwd, shadow, group and sudoers: this machine's stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Literal

from fleet_lab.host import Host

NAME = "fleetops"
UID = 64321

Sudo = Literal["password", "nopasswd", "none", "requiretty"]


def missing() -> str:
    """Why there can be no such account here; "": there can."""
    if os.geteuid() != 0:
        return "an account of its own needs root"
    for program in ("sudo", "unshare", "openssl"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    if subprocess.run(["unshare", "-m", "true"], capture_output=True).returncode:
        return "this machine makes no mount namespaces"
    return ""


def give_account(host: Host, password: str, sudo: Sudo) -> None:
    """Restart the host's sshd with this user, and log in as that from now on."""
    folder = host.folder / "etc"
    folder.mkdir()
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=password, text=True, check=True, capture_output=True
    ).stdout.strip()
    rules = {
        "password": f"{NAME} ALL=(ALL:ALL) ALL\n",
        "nopasswd": f"{NAME} ALL=(ALL:ALL) NOPASSWD: ALL\n",
        "none": "",
        "requiretty": f"Defaults:{NAME} requiretty\n{NAME} ALL=(ALL:ALL) NOPASSWD: ALL\n",
    }
    own = {
        "passwd": f"{NAME}:x:{UID}:{UID}::{host.home}:/bin/sh\n",
        "shadow": f"{NAME}:{hashed}:20000:0:99999:7:::\n",
        "group": f"{NAME}:x:{UID}:\n",
        "sudoers": rules[sudo],
    }
    script = []
    for name, line in own.items():
        there = Path("/etc", name)
        path = folder / name
        path.write_text("" if name == "sudoers" else there.read_text())
        with path.open("a") as file:
            file.write(line)
        shutil.copystat(there, path)
        os.chown(path, there.stat().st_uid, there.stat().st_gid)
        script.append(f"mount --bind '{path}' '{there}'")
    for path in (host.folder, host.folder / "shell", host.home):
        os.chown(path, UID, UID)
    (host.folder / "authorized_keys").chmod(0o644)
    host.folder.parent.chmod(0o711)
    host.within = [
        "unshare", "--mount", "--propagation", "private", "sh", "-ec", "\n".join([*script, 'exec "$@"']), "sh",
    ]  # fmt: skip
    host.user = NAME
    host.restart_sshd()
