"""One fake host: a real sshd of its own, with its own host key, home and processes, run as the current user."""

from __future__ import annotations

import getpass
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from fleet_lab import processes
from fleet_lab.processes import Process

SSHD_CONFIG = """Port {port}
ListenAddress {address}
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
UseDNS no
PrintMotd no
LogLevel VERBOSE
MaxStartups {max_startups}
SetEnv HOME={folder}/home
ForceCommand {folder}/shell
Subsystem sftp internal-sftp
{extra}
"""

# Every session goes through this. HOME is set by sshd too, or the user's own .bashrc would run before.
SHELL = """#!/bin/sh
export HOME='{home}' FLEET_LAB_HOST='{mark}' PATH='{path}'
cd "$HOME" || exit 99
{before}
case "$SSH_ORIGINAL_COMMAND" in
  "") exec /bin/sh -l ;;
  internal-sftp|*/sftp-server) {file_noise} exec {sftp_server} ;;
esac
{noise}
exec /bin/sh -c "$SSH_ORIGINAL_COMMAND"
"""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SFTP_SERVERS = (
    "/usr/lib/openssh/sftp-server",
    "/usr/libexec/openssh/sftp-server",
    "/usr/lib/ssh/sftp-server",
)


def program(name: str) -> str:
    """Path of a program of OpenSSH. Raises RuntimeError with the line that installs it."""
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":" + PATH)
    if found is None:
        raise RuntimeError(
            f"{name} is missing; tests on real hosts need it: apt-get install -y openssh-server openssh-client"
        )
    return found


def sftp_server() -> str:
    for path in SFTP_SERVERS:
        if Path(path).exists():
            return path
    if found := shutil.which("sftp-server"):  # where make unpacked it for a user who may not install
        return found
    raise RuntimeError("sftp-server is missing: apt-get install -y openssh-sftp-server")


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port


def make_key(path: Path, passphrase: str = "", kind: str = "ed25519") -> Path:
    path.unlink(missing_ok=True)
    argv = [program("ssh-keygen"), "-q", "-t", kind, "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return path


class Host:
    """A host that runs. `address` and `port` are where its sshd listens; `home` is what a login sees as $HOME."""

    def __init__(self, name: str, folder: Path, address: str, port: int, client_key: Path, mark: str) -> None:
        self.name = name
        self.folder = folder
        self.address = address
        self.port = port
        self.user = getpass.getuser()
        self.client_key = client_key
        self.known_hosts = client_key.with_name("known_hosts")
        self.home = folder / "home"
        self._mark = f"{mark}/{name}"
        self._path = PATH
        self._noise = ""
        self._file_noise = ""
        self._before = ""
        self._sshd: subprocess.Popen[bytes] | None = None
        self._mounted: Path | None = None
        self.extra_config = ""
        # What sshd is started by: see accounts.py.
        self.within: list[str] = []
        self.max_startups = "100:30:200"
        self.home.mkdir(parents=True, mode=0o700)
        make_key(folder / "host_key")
        (folder / "authorized_keys").write_text(client_key.with_name(client_key.name + ".pub").read_text())
        self._write_shell()

    def __repr__(self) -> str:
        return f"<Host {self.name} {self.address}:{self.port}>"

    # -- running -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start sshd and wait until it greets."""
        if self._sshd is not None and self._sshd.poll() is None:
            return
        config = SSHD_CONFIG.format(
            port=self.port,
            address=self.address,
            folder=self.folder,
            extra=self.extra_config,
            max_startups=self.max_startups,
        )
        (self.folder / "sshd_config").write_text(config)
        with (self.folder / "console.log").open("ab") as console:
            self._sshd = subprocess.Popen(
                self._launch(),
                env={**os.environ, "FLEET_LAB_HOST": self._mark},
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        until = time.monotonic() + 15
        while not self.greets():
            if self._sshd.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"sshd of {self.name} did not start:\n{self.log()}")
            time.sleep(0.02)

    def _launch(self) -> list[str]:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(parents=True, exist_ok=True)
        return self._sshd_argv()

    def _sshd_argv(self) -> list[str]:
        config, log = str(self.folder / "sshd_config"), str(self.folder / "sshd.log")
        return [*self.within, program("sshd"), "-D", "-E", log, "-f", config]

    def greets(self) -> bool:
        try:
            with socket.create_connection((self.address, self.port), 1) as stream:
                stream.settimeout(1)
                return stream.recv(3) == b"SSH"
        except OSError:
            return False

    def processes(self) -> list[Process]:
        """Everything that runs on this host, its sshd and the logins included."""
        found = {process.pid: process for process in processes.marked(f"FLEET_LAB_HOST={self._mark}")}
        if self._sshd is not None and self._sshd.poll() is None:
            found |= {process.pid: process for process in processes.tree(self._sshd.pid)}
        return list(found.values())

    def left(self) -> list[Process]:
        """Everything but sshd and its logins: what somebody left running."""
        own = {process.pid for process in processes.tree(self._sshd.pid)} if self._sshd else set()
        return [process for process in self.processes() if process.pid not in own]

    def outer_pid(self, pid: int) -> int:
        """What the host calls `pid`, as this test's /proc names it; -1: nothing living."""
        return pid

    def agents(self) -> list[Process]:
        """The agents that run here, without their workers. Their pids are those of this machine, not the host's own."""
        return [process for process in self.left() if "-m fleet_agent --config" in process.command]

    def kill(self) -> None:
        """The power goes off: every process of the host dies at once."""
        processes.end(self.processes())
        if self._sshd is not None:
            self._sshd.wait(10)
            self._sshd = None

    def drop_logins(self) -> None:
        """Cut every connection; sshd goes on."""
        assert self._sshd is not None
        below = [process for process in processes.tree(self._sshd.pid) if process.pid != self._sshd.pid]
        processes.end(process for process in below if "sshd" in process.command)

    def freeze(self) -> None:
        for process in self.processes():
            process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        for process in self.processes():
            process.send(signal.SIGCONT)

    def cut(self) -> None:
        """The network goes away; packets vanish."""
        raise NotImplementedError("only network-namespace hosts have a cable to cut: --hosts netns")

    def heal(self) -> None:
        raise NotImplementedError("only network-namespace hosts have a cable to cut: --hosts netns")

    def close(self) -> None:
        """The host and everything on it is gone for good."""
        self.kill()
        if self._mounted is not None:
            subprocess.run(["umount", "-l", str(self._mounted)], check=True)
            self._mounted = None

    # -- faults --------------------------------------------------------------------------------------------

    def rekey(self) -> None:
        """The machine was reinstalled: another host key. known_hosts is not told."""
        make_key(self.folder / "host_key")
        self.restart_sshd()

    def restart_sshd(self) -> None:
        """A new sshd with the present configuration; what else runs on the host goes on."""
        if self._sshd is not None:
            processes.end(processes.tree(self._sshd.pid))
            self._sshd.wait(10)
            self._sshd = None
        self.start()

    def without_python(self) -> None:
        """No python3 on the PATH of a login."""
        programs = self.folder / "programs"
        programs.mkdir()
        for folder in reversed(PATH.split(":")):
            for path in Path(folder).glob("*") if Path(folder).is_dir() else ():
                if "python" not in path.name and not path.is_dir():
                    (programs / path.name).unlink(missing_ok=True)
                    (programs / path.name).symlink_to(path)
        self._path = str(programs)
        self._write_shell()

    def with_program(self, name: str, text: str) -> None:
        """A program of this name comes before all others on the PATH of a login; `text` is the whole of it."""
        own = self.folder / "own-programs"
        own.mkdir(exist_ok=True)
        (own / name).write_text(text)
        (own / name).chmod(0o755)
        if not self._path.startswith(f"{own}:"):
            self._path = f"{own}:{self._path}"
            self._write_shell()

    def find_programs_in(self, path: str) -> None:
        """The PATH of a login."""
        self._path = path
        self._write_shell()

    def noisy(
        self, text: str = "*** Authorized use only ***\\n\\033[31mlast login: today\\033[0m\\n@{json?}"
    ) -> None:
        """Every login prints this on stdout and stderr before the command's own output, without a line end."""
        self._noise = f"printf '{text}'; printf '{text}' >&2"
        self._write_shell()

    def noisy_files(self) -> None:
        """A login script that prints even where files are copied, which breaks SFTP."""
        self._file_noise = "echo welcome to this fine machine;"
        self._write_shell()

    def with_full_disk(self, free_bytes: int) -> None:
        """Not more than about `free_bytes` fit: a small disk as root, else a limit on the size of a file."""
        if os.geteuid() == 0:
            place = self.home / ".fleetctl"
            place.mkdir(mode=0o700, exist_ok=True)
            argv = [
                "mount",
                "-t",
                "tmpfs",
                "-o",
                f"size={max(free_bytes, 4096)},mode=700",
                "tmpfs",
                str(place),
            ]
            subprocess.run(argv, check=True)
            self._mounted = place
        else:
            self._before = f"trap '' XFSZ; ulimit -f {max(1, free_bytes // 512)}"
            self._write_shell()

    def with_room_again(self) -> None:
        if self._mounted is not None:
            subprocess.run(["mount", "-o", "remount,size=1g", str(self._mounted)], check=True)
        self._before = ""
        self._write_shell()

    def _write_shell(self) -> None:
        shell = self.folder / "shell"
        text = SHELL.format(
            home=self.home,
            mark=self._mark,
            path=self._path,
            before=self._before,
            noise=self._noise,
            file_noise=self._file_noise,
            sftp_server=sftp_server(),
        )
        shell.with_suffix(".new").write_text(text)
        shell.with_suffix(".new").chmod(stat.S_IRWXU)
        shell.with_suffix(".new").replace(shell)

    # -- what others need to know ---------------------------------------------------------------------------

    @property
    def known_name(self) -> str:
        return self.address if self.port == 22 else f"[{self.address}]:{self.port}"

    def key_line(self) -> str:
        """The line of known_hosts for this host."""
        return f"{self.known_name} {' '.join((self.folder / 'host_key.pub').read_text().split()[:2])}"

    def log(self) -> str:
        """What sshd, the console and the agents on this host said."""
        parts = []
        logs = [self.folder / "sshd.log", self.folder / "console.log", *sorted(self.home.rglob("agent.log"))]
        for path in logs:
            with suppress(OSError):
                if path.stat().st_size:
                    parts.append(
                        f"--- {path.relative_to(self.folder)}\n{path.read_text(errors='replace')[-20000:]}"
                    )
        return "\n".join(parts)

    def entry(self, **changes: object) -> dict[str, object]:
        """This host as an entry of `hosts:` in fleet.yaml (whose `agent` may use any port)."""
        return {
            "name": self.name,
            "address": self.address,
            "ssh": {
                "port": self.port,
                "user": self.user,
                "identity_file": str(self.client_key),
                "known_hosts": str(self.known_hosts),
                "connect_timeout": "5s",
            },
            "agent": {"port": 0},
            "install": {"interpreter": sys.executable},
            **changes,
        }


def hosts_yaml(hosts: list[Host], **changes: object) -> str:
    """`hosts:` of a fleet.yaml with these hosts. JSON is YAML."""
    return "hosts: " + json.dumps([host.entry(**changes) for host in hosts], indent=1)
