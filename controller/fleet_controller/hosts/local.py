"""This machine as a host: the same commands and files, without SSH."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.inheritance import inherited
from fleet_controller.hosts.transport import MAX_TOTAL_OUTPUT, Hear, Output, Pace, Progress, Result, part_name

_CHUNK = 1 << 20


class LocalTransport:
    """Runs commands as children of this process, each in a session of its own; no shell is involved."""

    def __init__(
        self, host: str, command_timeout_s: float = 60.0, withheld: frozenset[str] = frozenset()
    ) -> None:
        """`withheld` variables of our environment are not handed on: passwords."""
        self.host = host
        self.command_timeout_s = command_timeout_s
        self._withheld = withheld

    def run(self, command: Command, hear: Hear | None = None, hear_error: Hear | None = None) -> Result:
        timeout = command.timeout_s or self.command_timeout_s
        try:
            process = subprocess.Popen(
                command.argv,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=inherited(self._withheld) | dict(command.env),
                start_new_session=True,
            )
        except FileNotFoundError:
            # What a shell on a remote host would say.
            return Result(127, b"", f"{command.argv[0]}: not found".encode())
        except OSError as error:
            raise HostFailure(
                self.host,
                "command",
                f"{command.argv[0]} could not be started: {error.strerror}",
                "Check that the program exists and may be run by this user",
            ) from error
        try:
            return self._talk(process, command, (hear, hear_error), time.monotonic() + timeout, timeout)
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _talk(
        self,
        process: subprocess.Popen[bytes],
        command: Command,
        hears: tuple[Hear | None, Hear | None],
        deadline: float,
        timeout: float,
    ) -> Result:
        assert process.stdin and process.stdout and process.stderr
        stdout, stderr = Output(command.output_limit), Output(command.output_limit)
        unsent = memoryview(command.stdin)
        ended_at: float | None = None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, stdout)
            selector.register(process.stderr, selectors.EVENT_READ, stderr)
            if unsent:
                os.set_blocking(process.stdin.fileno(), False)
                selector.register(process.stdin, selectors.EVENT_WRITE, None)
            else:
                process.stdin.close()
            while selector.get_map():
                now = time.monotonic()
                if now >= deadline:
                    raise HostFailure(
                        self.host,
                        "timeout",
                        f"{command.argv[0]} was not done after {timeout:g} s and was killed",
                        "See what holds it up on this machine, then run the same again",
                    )
                if process.poll() is not None:
                    # A child that it left behind may hold the pipes open; it is not waited for.
                    ended_at = ended_at or now
                    if now - ended_at > 1.0:
                        break
                wait = 0.05 if ended_at is not None else min(0.25, deadline - now)
                for key, _ in selector.select(max(wait, 0.0)):
                    if key.data is None:
                        unsent = self._feed(process.stdin, unsent)
                        if not unsent:
                            selector.unregister(process.stdin)
                            with suppress(BrokenPipeError):
                                process.stdin.close()
                        continue
                    data = os.read(key.fd, 65536)
                    if not data:
                        selector.unregister(key.fileobj)
                        continue
                    key.data.add(data)
                    hear = hears[0] if key.data is stdout else hears[1]
                    if hear is not None:
                        hear(data)
                    if key.data.total > MAX_TOTAL_OUTPUT:
                        raise HostFailure(
                            self.host,
                            "output",
                            f"{command.argv[0]} wrote more than {MAX_TOTAL_OUTPUT >> 20} MiB and was stopped",
                            "Make the command quieter",
                        )
            while process.poll() is None:
                if time.monotonic() >= deadline:
                    raise HostFailure(
                        self.host,
                        "timeout",
                        f"{command.argv[0]} was not done after {timeout:g} s and was killed",
                        "See what holds it up on this machine, then run the same again",
                    )
                time.sleep(0.005)
        return Result(
            process.returncode, stdout.value(), stderr.value(), stdout.truncated or stderr.truncated
        )

    def _feed(self, pipe: IO[bytes], unsent: memoryview) -> memoryview:
        """What is still unsent; nothing when the command does not want more."""
        try:
            return unsent[os.write(pipe.fileno(), unsent[:65536]) :]
        except BlockingIOError:
            return unsent
        except BrokenPipeError:
            return unsent[:0]

    def put(
        self,
        data: bytes | Path,
        path: str,
        mode: int,
        progress: Progress | None = None,
        sha256: str | None = None,
        pace: Pace | None = None,
    ) -> int:
        """Copying here is fast, and nothing is gone on with: `pace` is not for it, and `sha256` only checked."""
        target = Path(path)
        part = target.with_name(part_name(target.name, secrets.token_hex(4)))
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        digest = hashlib.sha256()
        source: IO[bytes] = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
        try:
            with (
                source,
                os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as out,
            ):
                sent = 0
                while chunk := source.read(_CHUNK):
                    out.write(chunk)
                    digest.update(chunk)
                    sent += len(chunk)
                    if progress is not None:
                        progress(sent, size)
                out.flush()
                os.fsync(out.fileno())
            if sha256 is not None and digest.hexdigest() != sha256:
                part.unlink()
                raise HostFailure(
                    "this machine",
                    "release",
                    f"{data if isinstance(data, Path) else path} is not what it should be (its sha256 differs)",
                    "Run the same again",
                )
            part.replace(target)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise self._unwritten(target, size, error) from error
        return size

    def _unwritten(self, target: Path, size: int, error: OSError) -> HostFailure:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            with suppress(OSError):
                free = shutil.disk_usage(target.parent).free
                return disk_failure(self.host, str(target.parent), size, free, str(error.strerror))
        kind = "permission" if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else "disk"
        return HostFailure(
            self.host,
            kind,
            f"{target} cannot be written: {error.strerror}",
            f"Check that {target.parent} exists and may be written by this user",
        )

    def close(self) -> None:
        """Nothing is kept open."""


def disk_failure(host: str, folder: str, size: int, free: int | None, why: str) -> HostFailure:
    """A file did not fit. `free` bytes are left there, None: unknown."""
    left = "free space unknown" if free is None else f"{free / 1e6:.1f} MB free"
    return HostFailure(
        host,
        "disk",
        f"no room for {size / 1e6:.1f} MB in {folder} ({left}; {why}); nothing was left half-written",
        f"Free space there (see `df -h {folder}`), or set install.directory to a bigger disk, then run the same again",
    )
