"""Commands and files over an SSH connection."""

from __future__ import annotations

import select
import time
from pathlib import Path

import paramiko

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.ssh.connection import SshConnection
from fleet_controller.hosts.ssh.upload import Upload
from fleet_controller.hosts.transport import MAX_TOTAL_OUTPUT, Hear, Output, Pace, Progress, Result

_CHUNK = 32 * 1024
# After the command ended, for children that keep its output open.
_LINGER_S = 1.0


class SshTransport:
    """One machine over SSH. Each command is a session channel of the shared connection."""

    def __init__(self, connection: SshConnection, command_timeout_s: float) -> None:
        self.host = connection.server.label
        self._connection = connection
        self._command_timeout_s = command_timeout_s

    def run(self, command: Command, hear: Hear | None = None, hear_error: Hear | None = None) -> Result:
        with self._connection.slot():
            return self._execute(command, hear, hear_error)

    def _execute(self, command: Command, hear: Hear | None = None, hear_error: Hear | None = None) -> Result:
        timeout = command.timeout_s or self._command_timeout_s
        channel = self._connection.session()
        try:
            channel.settimeout(timeout)
            # Not an EOF of ours: paramiko may send it behind the end of a short command, and sshd then hangs up on
            # all that goes on over this connection ("ieof packet referred to nonexistent channel").
            channel.exec_command(command.line() if command.stdin else f"{command.line()} </dev/null")
            return self._talk(channel, command, (hear, hear_error), timeout)
        except TimeoutError as error:
            raise self._too_slow(command, timeout) from error
        except (paramiko.SSHException, EOFError, OSError) as error:
            raise self._broke(command, error) from error
        finally:
            channel.close()

    def _talk(
        self,
        channel: paramiko.Channel,
        command: Command,
        hears: tuple[Hear | None, Hear | None],
        timeout: float,
    ) -> Result:
        hear, hear_error = hears
        until = time.monotonic() + timeout
        stdout, stderr = Output(command.output_limit), Output(command.output_limit)
        unsent = memoryview(command.stdin)
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
                data = channel.recv_stderr(65536)
                stderr.add(data)
                if hear_error is not None and data:
                    hear_error(data)
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
        return self._connection.server.lost(f"{command.argv[0]} ran; its outcome is unknown", error)

    def put(
        self,
        data: bytes | Path,
        path: str,
        mode: int,
        progress: Progress | None = None,
        sha256: str | None = None,
        pace: Pace | None = None,
    ) -> int:
        upload = Upload(self._connection, self._execute, self._command_timeout_s)
        return upload.put(data, path, mode, progress, sha256, pace)

    def close(self) -> None:
        self._connection.close()
