"""A host with a systemd of its own: a Debian that boots in a container (systemd-nspawn), reached by its own sshd.

Root only. It shares this machine's network, so its sshd has a port of its own on loopback; processes, users, journal,
control groups and boot-id are its own. Its root folder is made once by tests/lab/rootfs.py and never written: each host
has a layer of its own above it.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from fleet_lab import processes
from fleet_lab.host import Host
from fleet_lab.processes import Process

REPOSITORY = Path(__file__).resolve().parents[3]
ROOTFS = Path(os.environ.get("FLEET_LAB_ROOTFS") or REPOSITORY / ".venv/rootfs/bookworm")
SUDO_PASSWORD = "a-sudo-password"
GROUPS = Path("/sys/fs/cgroup")

SSHD = """Port {port}
ListenAddress 127.0.0.1
UseDNS no
LogLevel VERBOSE
MaxStartups 100:30:200
"""

# In control groups of its own, or all containers' systemds would share one. Some hierarchies (cpuset) take none.
BOOT = """set -e
for folder in {groups}; do mkdir -p $folder; echo $$ > $folder/cgroup.procs || true; done
exec unshare --mount --fork --kill-child=KILL sh -c '
mount --make-rprivate /
mount -t overlay overlay -o lowerdir={rootfs},upperdir={disk}/upper,workdir={disk}/work {merged}
exec systemd-nspawn -q -D {merged} --machine={machine} --hostname={name} --boot --register=no --keep-unit \\
    --console=pipe --link-journal=no {binds}'
"""


def whole(folder: Path) -> bool:
    """Whether rootfs.py made it to its end."""
    return (folder / "etc/fleet-lab").exists()


def missing() -> str:
    """Why no such host can be had here; "" where it can."""
    if os.geteuid() != 0:
        return "hosts with systemd need root"
    if shutil.which("systemd-nspawn") is None:
        return "systemd-nspawn is missing: apt-get install -y systemd-container"
    return "" if whole(ROOTFS) else f"no {ROOTFS}: make test-systemd makes it"


class SystemdHost(Host):
    """`user` is who logs in: root, ops (sudo), guarded (sudo with SUDO_PASSWORD), plain (no sudo)."""

    def __init__(self, name: str, folder: Path, port: int, client_key: Path, mark: str) -> None:
        self._disk = folder / "disk"
        self._disk.mkdir(parents=True)
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=512m,mode=755", "tmpfs", str(self._disk)], check=True
        )
        super().__init__(name, folder, "127.0.0.1", port, client_key, mark)
        self._mounted = self._disk
        # Folders of this machine that it sees, read-only: where it sees them -> where they are.
        self.binds: dict[str, Path] = {}
        self._machine = "fl" + mark.replace("/", "").replace("-", "")[-10:] + name
        # One for each hierarchy of version 1, or below the one of version 2.
        self._groups = [file.parent / self._machine for file in sorted(GROUPS.glob("*/cgroup.procs"))]
        if (GROUPS / "cgroup.procs").exists():
            self._groups = [GROUPS / self._machine]
        upper = self._disk / "upper"
        (upper / "etc/ssh/sshd_config.d").mkdir(parents=True)
        (self._disk / "work").mkdir()
        (folder / "merged").mkdir()
        (upper / "etc/ssh/sshd_config.d/lab.conf").write_text(SSHD.format(port=port))
        for suffix in ("", ".pub"):
            shutil.copy(folder / f"host_key{suffix}", upper / f"etc/ssh/ssh_host_ed25519_key{suffix}")
        for line in (ROOTFS / "etc/passwd").read_text().splitlines():
            entry = pwd.struct_passwd(
                [*line.split(":")[:2], *map(int, line.split(":")[2:4]), *line.split(":")[4:]]
            )
            if entry.pw_name in ("root", "ops", "guarded", "plain"):
                ssh = upper / entry.pw_dir.lstrip("/") / ".ssh"
                ssh.mkdir(parents=True, mode=0o700)
                shutil.copy(folder / "authorized_keys", ssh / "authorized_keys")
                for path in (ssh.parent, ssh, ssh / "authorized_keys"):
                    os.chown(path, entry.pw_uid, entry.pw_gid)
                ssh.parent.chmod(0o700)
        self.login("root")

    def login(self, user: str) -> None:
        """From here on this user logs in."""
        self.user = user
        self.home = self._disk / "upper" / ("root" if user == "root" else f"home/{user}")

    def _launch(self) -> list[str]:
        text = BOOT.format(
            groups=" ".join(str(group) for group in self._groups),
            rootfs=ROOTFS,
            disk=self._disk,
            merged=self.folder / "merged",
            machine=self._machine,
            name=self.name,
            binds=" ".join(f"--bind-ro={there}:{here}" for here, there in self.binds.items()),
        )
        (self.folder / "boot").write_text(text)
        return ["/bin/sh", str(self.folder / "boot")]

    def start(self) -> None:
        super().start()
        until = time.monotonic() + 60
        while self.run("systemctl", "is-system-running").stdout.strip() not in ("running", "degraded"):
            if time.monotonic() > until:
                raise RuntimeError(f"{self.name} did not boot:\n{self.log()}")
            time.sleep(0.1)

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """A command as root on the host, without SSH."""
        inside = next((p.pid for p in self.processes() if self._inner(p.pid) == "1"), None)
        if inside is None:
            return subprocess.CompletedProcess(argv, 255, "", "the host is off")
        enter = ["nsenter", "--target", str(inside), "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--"]
        return subprocess.run([*enter, *argv], capture_output=True, text=True, stdin=subprocess.DEVNULL)

    def limit_memory(self) -> str:
        """From here on its systemd limits the memory of units, as a machine's does; why it can't be had, "" else.

        systemd-nspawn mounts the controllers of version 1 read-only, and systemd remembers that it could not use them.
        """
        memory = "/sys/fs/cgroup/memory"
        if self.run("test", "-d", memory).returncode == 0:
            self.run("mount", "-o", "remount,bind,rw", memory)
            self.run("systemctl", "daemon-reexec")
        argv = ["systemd-run", "--quiet", "--wait", "--pipe", "-p", "MemoryMax=64M", "cat"]
        files = (f"{memory}/system.slice/limited.service/memory.limit_in_bytes",
                 "/sys/fs/cgroup/system.slice/limited.service/memory.max")  # fmt: skip
        done = self.run(*argv[:-1], "--unit=limited", *argv[-1:], *files)
        if str(64 << 20) in done.stdout.split():
            return ""
        return f"systemd can't limit memory in this container: {done.stderr.strip()[-300:]}"

    def reboot(self) -> None:
        """As after a power cut: everything that ran is gone, the disk stays."""
        self.kill()
        self.start()

    def processes(self) -> list[Process]:
        return processes.tree(self._sshd.pid) if self._sshd is not None else []

    def _inner(self, pid: int) -> str:
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{pid}/status").read_text().splitlines()
            words = next(line for line in lines if line.startswith("NSpid:")).split()
            return words[-1] if len(words) > 2 else ""
        return ""

    def outer_pid(self, pid: int) -> int:
        return next((p.pid for p in self.processes() if self._inner(p.pid) == str(pid)), -1)

    def close(self) -> None:
        super().close()
        for group in self._groups:
            for folder, _, _ in os.walk(group, topdown=False):
                with suppress(OSError):
                    Path(folder).rmdir()

    def entry(self, **changes: object) -> dict[str, object]:
        return {**super().entry(), "install": {"interpreter": "python3"}, **changes}
