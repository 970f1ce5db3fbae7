"""The daemons of a fleet on the operator's machine: start them detached, find them again, stop them."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from fleet_controller import failpoint
from fleet_controller.door import config as doorconfig
from fleet_controller.hosts.inheritance import inherited, passwords
from fleet_controller.spec import FleetSpec
from fleet_controller.statefolder import StateFolder

LOG_LIMIT_BYTES = 10 * 1024 * 1024


class DaemonError(Exception):
    """A daemon did not start or did not stop; the message has its last words."""


@dataclass(frozen=True)
class Process:
    """A process on this machine. `start_ticks` and `boot_id` tell it from a later one with the same pid."""

    pid: int
    start_ticks: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> Process | None:
        ticks = _start_ticks(pid)
        return None if ticks is None else cls(pid, ticks, _boot_id())

    def alive(self) -> bool:
        return self.boot_id == _boot_id() and _start_ticks(self.pid) == self.start_ticks


class Daemon:
    """One long-running program of the fleet, known by its pid file `<name>.pid` in the state folder.

    `prepare` puts in place what it reads as it starts, and is called before that; it may raise OSError. `withheld`
    variables of our environment are not handed on: passwords.
    """

    def __init__(
        self,
        name: str,
        folder: StateFolder,
        argv: list[str],
        prepare: Callable[[], object] | None = None,
        withheld: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self._withheld = withheld
        self.argv = argv
        self._prepare = prepare
        self._pid_file = folder.path / f"{name}.pid"
        self.log_file = folder.path / f"{name}.log"
        self.ready_file = folder.path / f"{name}.json"

    def find(self) -> Process | None:
        """The running process, or None."""
        announced = self._announced()
        if announced is not None:
            return announced
        try:
            process = Process(**json.loads(self._pid_file.read_text()))
        except (OSError, ValueError, TypeError):
            return None
        if process.alive():
            return process
        _reap(process.pid)
        return None

    def _announced(self) -> Process | None:
        """The one that says that our ready file is its own.

        The pid file may not know it: its starter was killed before it wrote that, or it took over from the process that
        is written there.
        """
        pid = self.ready().get("pid")
        if not isinstance(pid, int):
            return None
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        except OSError:
            return None
        return Process.of(pid) if os.fsencode(self.ready_file) in words else None

    def ensure(self, timeout_s: float = 30.0) -> bool:
        """Start it unless it runs; True when it was started. Returns once its ready file is there.

        Who comes while another starts it waits for that. Raises DaemonError with the end of its log when it dies or is
        not ready in time.
        """
        if self.find() is not None:
            return False
        with self._pid_file.with_suffix(".starting").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # ends with the file, however this process ends
            return self.find() is None and self._start(timeout_s)

    def prepare(self) -> None:
        """Raises DaemonError where what it reads as it starts can't be written."""
        try:
            if self._prepare is not None:
                self._prepare()
        except OSError as error:
            raise DaemonError(f"the {self.name} can't be configured: {error}") from error

    @failpoint.around("daemon.signal")
    def signal(self, number: signal.Signals) -> bool:
        """Send it a signal; False where it does not run."""
        process = self.find()
        if process is None:
            return False
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return False
        return True

    @failpoint.around("daemon.start")
    def _start(self, timeout_s: float) -> bool:
        self.prepare()
        self.ready_file.unlink(missing_ok=True)
        if self.log_file.exists() and self.log_file.stat().st_size > LOG_LIMIT_BYTES:
            self.log_file.replace(self.log_file.with_suffix(".log.1"))
        descriptor = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        with os.fdopen(descriptor, "ab") as log:
            child = subprocess.Popen(
                [*self.argv, "--ready-file", str(self.ready_file)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
                env=inherited(self._withheld),
            )
        process = Process.of(child.pid)
        if process is not None:
            fresh = self._pid_file.with_suffix(".pid.new")
            fresh.write_text(json.dumps(asdict(process)))
            fresh.replace(self._pid_file)
        try:
            self._await_ready(child, timeout_s)
        finally:
            if child.poll() is None:
                child.returncode = 0  # it lives on without this object, which would warn of that; see _reap
        return True

    def _await_ready(self, child: subprocess.Popen[bytes], timeout_s: float) -> None:
        deadline = time.monotonic() + timeout_s
        while not self.ready_file.exists():
            if child.poll() is not None:
                raise DaemonError(
                    f"the {self.name} ended with status {child.returncode}: {self.last_words()}"
                )
            if time.monotonic() > deadline:
                raise DaemonError(f"the {self.name} was not ready in {timeout_s:.0f} s: {self.last_words()}")
            time.sleep(0.02)

    def ready(self) -> dict[str, object]:
        """What it wrote to its ready file; empty when it is not there."""
        try:
            content: dict[str, object] = json.loads(self.ready_file.read_text())
        except (OSError, ValueError):
            return {}
        return content

    @failpoint.around("daemon.stop")
    def stop(self, timeout_s: float = 30.0) -> bool:
        """SIGTERM, then SIGKILL after `timeout_s`; True when there was one to stop. Returns when it is gone.

        A process that was taken over and finishes its last requests is stopped too.
        """
        stopped = False
        while (process := self.find()) is not None:
            self._end(process, timeout_s)
            stopped = True
        self._pid_file.unlink(missing_ok=True)
        self.ready_file.unlink(missing_ok=True)
        return stopped

    def _end(self, process: Process, timeout_s: float) -> None:
        for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 10.0)):
            try:
                os.kill(process.pid, number)
            except ProcessLookupError:
                pass
            deadline = time.monotonic() + patience_s
            while process.alive() and time.monotonic() < deadline:
                _reap(process.pid)
                time.sleep(0.02)
            if not process.alive():
                return
        raise DaemonError(f"the {self.name} (process {process.pid}) does not end, not even by SIGKILL")

    def last_words(self, lines: int = 5) -> str:
        try:
            text = self.log_file.read_text(errors="replace")
        except OSError:
            return f"no log at {self.log_file}"
        return " | ".join(text.strip().splitlines()[-lines:]) or f"nothing in {self.log_file}"


def balancer(spec: FleetSpec, folder: StateFolder) -> Daemon:
    """The front door. What it is told by its configuration, a file, is not seen in the list of processes."""
    argv = [sys.executable, "-m", "fleet_balancer", "--config", str(doorconfig.config_file(folder))]
    return Daemon(
        "balancer",
        folder,
        argv,
        lambda: doorconfig.write(doorconfig.config(spec, folder), folder),
        passwords(spec),
    )


def controller(spec: FleetSpec, folder: StateFolder) -> Daemon:
    argv = [
        sys.executable,
        "-m",
        "fleet_controller",
        "--fleet",
        str(spec.source),
        "--state",
        folder.journal_url,
    ]
    return Daemon("controller", folder, argv)


def _start_ticks(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None when the process is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])


def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _reap(pid: int) -> None:
    """Collect the daemon if it is this very process's child, so that it does not stay a zombie."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass
