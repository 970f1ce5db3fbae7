"""A real libvirtd with its qemu driver, whose files, sockets and machines are all its own. Root only."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from fleet_lab import processes
from fleet_lab.host import program

# libvirtd as root has its places compiled in. It sees ours there; nobody else does.
PLACES = ("/etc/libvirt", "/var/lib/libvirt", "/var/log/libvirt", "/var/cache/libvirt", "/run/libvirt")
START = """set -e
mount --make-rprivate /
for place in {places}; do
    mkdir -p "{folder}$place" "$place"
    mount --bind "{folder}$place" "$place"
done
exec {daemon} -f {folder}/libvirtd.conf -p {folder}/libvirtd.pid
"""
DAEMON_CONF = """unix_sock_dir = "{folder}"
auth_unix_rw = "none"
auth_unix_ro = "none"
log_outputs = "2:file:{folder}/log"
"""
# No second daemon for the consoles, no cgroups of its own, and whoever runs the tests owns the disks.
QEMU_CONF = """stdio_handler = "file"
user = "root"
group = "root"
security_driver = "none"
dynamic_ownership = 0
remember_owner = 0
namespaces = [ ]
cgroup_controllers = [ ]
"""


class Hypervisor:
    """`uri` is what virsh is given, by whoever may open the socket in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"qemu+unix:///system?socket={folder}/libvirt-sock"
        self.type = "kvm" if virtualizes() else "qemu"
        self._virsh = program("virsh")
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns once it answers. Raises RuntimeError with its log."""
        conf = self.folder / "etc/libvirt/qemu.conf"
        conf.parent.mkdir(parents=True)
        conf.write_text(QEMU_CONF)
        (self.folder / "libvirtd.conf").write_text(DAEMON_CONF.format(folder=self.folder))
        script = START.format(folder=self.folder, daemon=program("libvirtd"), places=" ".join(PLACES))
        with (self.folder / "console").open("wb") as console:
            self._daemon = subprocess.Popen(
                ["unshare", "--mount", "/bin/sh", "-c", script],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
            )
        until = time.monotonic() + 120
        while self._call("uri").returncode != 0:
            if self._daemon.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"libvirtd did not start:\n{self.log()}")
            time.sleep(0.1)

    def do(self, *words: str) -> str:
        """`virsh WORDS`; its output. Raises RuntimeError with what it says."""
        done = self._call(*words)
        if done.returncode:
            raise RuntimeError(f"virsh {' '.join(words)}: {done.stderr.strip()}\n{self.log()}")
        return done.stdout.strip()

    def state(self, domain: str) -> str:
        return self.do("domstate", domain)

    def _call(self, *words: str) -> subprocess.CompletedProcess[str]:
        argv = [self._virsh, "-q", "-c", self.uri, *words]
        told = {**os.environ, "LC_ALL": "C"}
        # The first domain makes it look at every qemu there is, which takes a minute.
        return subprocess.run(
            argv, capture_output=True, text=True, env=told, stdin=subprocess.DEVNULL, timeout=240
        )

    def log(self) -> str:
        places = [
            self.folder / "console",
            self.folder / "log",
            *self.folder.glob("var/log/libvirt/qemu/*.log"),
        ]
        return "\n".join(
            f"--- {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in places if path.exists()
        )

    def close(self) -> None:
        """Pull every machine's plug, then end the daemon."""
        if self._daemon is None:
            return
        for pid in self.folder.glob("run/libvirt/qemu/*.pid"):
            if (one := processes.look(int(pid.read_text()))) is not None and "qemu" in one.command:
                processes.end([one])
        self._daemon.terminate()
        try:
            self._daemon.wait(20)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()


def virtualizes() -> bool:
    """Whether this machine's processor runs machines by itself: /dev/kvm that leads nowhere is no answer."""
    flags = next(
        (line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")), ""
    )
    return bool({"vmx", "svm"} & set(flags.split())) and os.access("/dev/kvm", os.R_OK | os.W_OK)
