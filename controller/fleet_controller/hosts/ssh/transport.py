"""Commands and files over an SSH connection."""

from __future__ import annotations

import hashlib
import io
import posixpath
import secrets
import select
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import paramiko

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.local import disk_failure
from fleet_controller.hosts.ssh.connection import SshConnection
from fleet_controller.hosts.transport import MAX_TOTAL_OUTPUT, Hear, Output, Progress, Result

_CHUNK = 32 * 1024
_TROUBLE = (OSError, EOFError, paramiko.SSHException, paramiko.SFTPError)
# After the command ended, for children that keep its output open.
_LINGER_S = 1.0


class SshTransport:
    """One machine over SSH. Each command is a session channel of the shared connection."""

    def __init__(self, connection: SshConnection, command_timeout_s: float) -> None:
        self.host = connection.server.label
        self._connection = connection
        self._command_timeout_s = command_timeout_s

    def run(self, command: Command, hear: Hear | None = None) -> Result:
        with self._connection.slot():
            return self._execute(command, hear)

    def _execute(self, command: Command, hear: Hear | None = None) -> Result:
        timeout = command.timeout_s or self._command_timeout_s
        channel = self._connection.session()
        try:
            channel.settimeout(timeout)
            channel.exec_command(command.line())
            return self._talk(channel, command, hear, timeout)
        except TimeoutError as error:
            raise self._too_slow(command, timeout) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._broke(command, error) from error
        finally:
            channel.close()

    def _talk(self, channel: paramiko.Channel, command: Command, hear: Hear | None, timeout: float) -> Result:
        until = time.monotonic() + timeout
        stdout, stderr = Output(command.output_limit), Output(command.output_limit)
        unsent = memoryview(command.stdin)
        if not unsent:
            channel.shutdown_write()
        poll = select.poll()
        poll.register(channel.fileno(), select.POLLIN)
        ended_at: float | None = None
        while True:
            if unsent and channel.send_ready():
                try:
                    unsent = unsent[channel.send(bytes(unsent[:_CHUNK])) :]
                except OSError:
                    unsent = unsent[:0]  # the command does not want more; its status says why
                if not unsent:
                    channel.shutdown_write()
            while channel.recv_ready():
                data = channel.recv(65536)
                stdout.add(data)
                if hear is not None and data:
                    hear(data)
            while channel.recv_stderr_ready():
                stderr.add(channel.recv_stderr(65536))
            if stdout.total + stderr.total > MAX_TOTAL_OUTPUT:
                raise HostFailure(
                    self.host,
                    "output",
                    f"{command.argv[0]} wrote more than {MAX_TOTAL_OUTPUT >> 20} MiB and was cut off",
                    "Make the command quieter",
                )
            now = time.monotonic()
            if channel.exit_status_ready():
                ended_at = ended_at or now
                drained = not (channel.recv_ready() or channel.recv_stderr_ready())
                if drained and (channel.eof_received or now - ended_at > _LINGER_S):
                    break
            elif channel.closed or not channel.get_transport().is_active():
                break
            if now >= until:
                raise TimeoutError
            if channel.eof_received and not unsent:
                # At its end the stream stays readable for ever; what is missing is the exit status.
                channel.status_event.wait(0.05)
            elif not (unsent and channel.send_ready()):
                poll.poll(20 if unsent or ended_at else min(250, 1000 * (until - now) + 1))
        if channel.exit_status == -1:
            # No exit status came: the connection broke, or a signal ended the command.
            if channel.get_transport().is_active() and channel.eof_received:
                return Result(-1, stdout.value(), stderr.value(), stdout.truncated or stderr.truncated)
            raise self._broke(command, None)
        return Result(
            channel.exit_status, stdout.value(), stderr.value(), stdout.truncated or stderr.truncated
        )

    def _too_slow(self, command: Command, timeout: float) -> HostFailure:
        return HostFailure(
            self.host,
            "timeout",
            f"{command.argv[0]} was not done after {timeout:g} s; whether it still will be is unknown",
            "Look at the machine (load, disk, memory), then run the same again",
        )

    def _broke(self, command: Command, error: BaseException | None) -> HostFailure:
        return self._connection.lost(f"{command.argv[0]} ran; its outcome is unknown", error)

    def put(self, data: bytes | Path, path: str, mode: int, progress: Progress | None = None) -> None:
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        folder = posixpath.dirname(path) or "."
        part = posixpath.join(folder, f".{posixpath.basename(path)}.{secrets.token_hex(4)}.part")
        source: BinaryIO = io.BytesIO(data) if isinstance(data, bytes) else data.open("rb")
        with self._connection.slot(), source:
            sftp = self._sftp()
            try:
                digest = self._upload(sftp, source, part, size, mode, progress)
                self._check(sftp, part, size, digest)
                sftp.posix_rename(part, path)
            except _TROUBLE as error:
                raise self._unwritten(folder, path, size, error) from error
            finally:
                with suppress(*_TROUBLE):
                    sftp.remove(part)  # gone already when all went well
                sftp.close()

    def _sftp(self) -> paramiko.SFTPClient:
        channel = self._connection.session()
        channel.settimeout(self._command_timeout_s)
        try:
            channel.invoke_subsystem("sftp")
            return paramiko.SFTPClient(channel)
        except _TROUBLE as error:
            channel.close()
            raise HostFailure(
                self.host,
                "sftp",
                f"it takes no files by SFTP ({brief(str(error)) or 'the channel was closed'})",
                "Set `Subsystem sftp internal-sftp` in the host's sshd_config; a login script that prints something"
                " (.bashrc) breaks it too",
            ) from error

    def _upload(
        self,
        sftp: paramiko.SFTPClient,
        source: BinaryIO,
        part: str,
        size: int,
        mode: int,
        progress: Progress | None,
    ) -> str:
        digest = hashlib.sha256()
        with sftp.open(part, "wx") as out:
            out.chmod(mode)
            out.set_pipelined(True)
            sent = 0
            while chunk := source.read(_CHUNK):
                out.write(chunk)
                digest.update(chunk)
                sent += len(chunk)
                if progress is not None:
                    progress(sent, size)
        return digest.hexdigest()

    def _check(self, sftp: paramiko.SFTPClient, part: str, size: int, digest: str) -> None:
        """What arrived is what was sent. Raises OSError when it is not whole, HostFailure when it is another."""
        arrived = sftp.stat(part).st_size
        if arrived != size:
            raise OSError(f"{arrived} of {size} bytes arrived")
        found = self._execute(Command(("sha256sum", "--", part), timeout_s=60 + size / 20e6))
        if digest.encode() in found.stdout:
            return
        if found.status == 127:  # no such program there: read the file back
            reading = hashlib.sha256()
            with sftp.open(part, "rb") as back:
                back.prefetch(size)
                while chunk := back.read(_CHUNK):
                    reading.update(chunk)
            if reading.hexdigest() == digest:
                return
        raise HostFailure(
            self.host, "sftp", f"{part} arrived damaged (its sha256 differs)", "Run the same again"
        )

    def _unwritten(self, folder: str, path: str, size: int, error: BaseException) -> HostFailure:
        if isinstance(error, PermissionError):
            return HostFailure(
                self.host,
                "permission",
                f"{path} may not be written by this user",
                "Set install.directory to its own",
            )
        if isinstance(error, FileNotFoundError):
            return HostFailure(self.host, "sftp", f"there is no folder {folder}", "Run the same again")
        if (
            not isinstance(error, OSError)
            or isinstance(error, TimeoutError | ConnectionError)
            or "closed" in str(error)
        ):
            return self._connection.lost(f"{path} was sent", error)
        # SFTP has one word for all trouble ("Failure"): ask how full the disk is.
        return disk_failure(self.host, folder, size, self._free(folder), brief(str(error)))

    def _free(self, folder: str) -> int | None:
        with suppress(HostFailure, ValueError, IndexError):
            said = self._execute(Command(("df", "-Pk", "--", folder), timeout_s=10)).stdout.decode(
                "utf-8", "replace"
            )
            return int(said.splitlines()[-1].split()[3]) * 1024
        return None

    def close(self) -> None:
        self._connection.close()
