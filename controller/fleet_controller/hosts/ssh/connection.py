"""One authenticated SSH connection per host, made when it is needed and made again when it broke.

The order is fixed: reach the port, verify the host key, only then log in. Nothing is sent to a host whose key
is not the known one. Every phase has a time limit; connecting as a whole takes at most twice `connect_timeout`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import paramiko
from paramiko.common import OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED

from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.ssh import hostkey
from fleet_controller.hosts.ssh.dial import dial
from fleet_controller.hosts.ssh.gate import Gate
from fleet_controller.hosts.ssh.handshake import Stream, negotiate
from fleet_controller.hosts.ssh.hostkey import ShownKey
from fleet_controller.hosts.ssh.known_hosts import KnownHosts, Verdict
from fleet_controller.hosts.ssh.login import Login
from fleet_controller.hosts.ssh.server import Server

# sshd opens at most 10 sessions per connection (MaxSessions), and sending a file takes two.
MAX_SESSIONS = 5


class SshConnection:
    """The connection to one server, through `jump` where one is given. Safe for threads."""

    def __init__(self, server: Server, gate: Gate, jump: SshConnection | None = None) -> None:
        self.server = server
        self.jump = jump
        self._gate = gate
        self._login = Login(server)
        self._slots = threading.BoundedSemaphore(MAX_SESSIONS)
        self._lock = threading.Lock()
        self._transport: paramiko.Transport | None = None
        self._since: float | None = None

    def __repr__(self) -> str:
        way = f" via {self.jump.server.label}" if self.jump else ""
        return f"<SshConnection {self.server.user}@{self.server.address}:{self.server.port}{way}>"

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One of the MAX_SESSIONS that may be at work at once."""
        wait = self.server.command_timeout
        if not self._slots.acquire(timeout=wait):
            raise self.server.failure(
                "busy",
                f"{MAX_SESSIONS} commands are at work there and none ended within {wait:g} s",
                "Try again later",
            )
        try:
            yield
        finally:
            self._slots.release()

    def session(self) -> paramiko.Channel:
        """A new session channel on a living connection; connects again, once, when the old one is dead."""
        return self._open("session", None)

    def tunnel(self, address: str, port: int) -> paramiko.Channel:
        """A TCP connection from this server to another (ProxyJump)."""
        return self._open("direct-tcpip", (address, port))

    def _open(self, kind: str, to: tuple[str, int] | None) -> paramiko.Channel:
        timeout = self.server.connect_timeout
        for attempt in (1, 2):
            transport, fresh = self._living()
            try:
                source = ("127.0.0.1", 0) if to else None
                return transport.open_channel(kind, to, source, timeout=timeout)
            except paramiko.ChannelException as error:
                raise self._channel_refused(kind, to, error) from error
            except (paramiko.SSHException, EOFError, OSError) as error:
                # The connection looked alive and was not.
                self.drop(transport)
                if fresh or attempt == 2:
                    raise self.server.lost("opening a channel", error) from error
        raise AssertionError("unreachable")

    def _living(self) -> tuple[paramiko.Transport, bool]:
        """The connection, and whether it was made just now."""
        with self._lock:
            if self._transport is not None:
                if self._transport.is_active() and self._transport.is_authenticated():
                    return self._transport, False
                self._transport.close()
                self._transport = None
            self._since = time.monotonic()
            try:
                self._transport = self._connect()
            finally:
                self._since = None
            return self._transport, True

    def reaching_s(self) -> float:
        """For how many seconds it has been tried to connect by now; 0: it is not tried."""
        since = self._since
        return 0.0 if since is None else time.monotonic() - since

    def ring(self, within_s: float) -> Literal["greets", "alive", "silent"]:
        """Whether the server greets, something else of the machine answers, or nothing does. Nobody logs in there.

        Raises HostFailure where that can't be known: no address, or a jump host that is not reached.
        """
        until = time.monotonic() + within_s
        try:
            stream = self._stream(until)
        except HostFailure as failure:
            if failure.kind in ("dns", "jump"):
                raise
            refused = failure.kind == "refused" and (self.jump is None or "refused" in failure.cause.lower())
            return "alive" if refused else "silent"
        try:
            stream.settimeout(max(0.1, until - time.monotonic()))
            return "greets" if stream.recv(4) == b"SSH-" else "alive"
        except (OSError, EOFError, paramiko.SSHException):
            return "alive"
        finally:
            stream.close()

    def drop(self, transport: paramiko.Transport | None = None) -> None:
        """Close the connection (only if it still is `transport`, where given)."""
        with self._lock:
            gone = self._transport
            if gone is None or (transport is not None and gone is not transport):
                return
            self._transport = None
        gone.close()

    def close(self) -> None:
        self.drop()

    # -- connecting ----------------------------------------------------------------------------------------

    def _connect(self) -> paramiko.Transport:
        self._login.check()
        known = hostkey.known_hosts(self.server)
        transport = self._negotiate(known)
        try:
            hostkey.verify(self.server, known, transport, self.jump.server if self.jump else None)
            self._login.perform(transport)
        except BaseException:
            transport.close()
            raise
        if self.server.keepalive:
            transport.set_keepalive(max(1, round(self.server.keepalive)))
        return transport

    def _negotiate(self, known: KnownHosts) -> paramiko.Transport:
        return negotiate(self.server, known, self._stream, self._gate, self.jump)

    def shown_key(self) -> tuple[ShownKey, Verdict]:
        """The key that the server shows, and what known_hosts says of it; nobody logs in or trusts it."""
        known = hostkey.known_hosts(self.server)
        transport = self._negotiate(known)
        try:
            shown = ShownKey.of(transport)
            return shown, hostkey.judge(self.server, known, shown, time.time())[0].verdict
        finally:
            transport.close()

    def _stream(self, until: float) -> Stream:
        if self.jump is not None:
            try:
                return self.jump.tunnel(self.server.address, self.server.port)
            except HostFailure as failure:
                if failure.kind == "tunnel":
                    raise self.server.failure("refused", failure.cause, failure.next_step) from failure
                raise HostFailure(
                    self.server.label,
                    "jump",
                    f"the way there is broken: jump host {failure.host}: {failure.cause}",
                    failure.next_step,
                    failure.jump or self.jump.server.label,
                ) from failure
        return dial(self.server, until)

    def _channel_refused(
        self, kind: str, to: tuple[str, int] | None, error: paramiko.ChannelException
    ) -> HostFailure:
        if to is None:
            return self.server.failure(
                "protocol",
                f"the host opens no session ({brief(error.text)})",
                "Raise MaxSessions in the host's sshd_config, or see its sshd log",
            )
        where = f"{to[0]} port {to[1]}"
        if error.code == OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
            return self.server.failure(
                "protocol",
                f"it does not forward connections ({brief(error.text)})",
                "Allow it in the jump host's sshd_config: AllowTcpForwarding yes",
            )
        return HostFailure(
            self.server.label,
            "tunnel",
            f"jump host {self.server.label} cannot reach {where} ({brief(error.text)})",
            "Check that the machine is on and its SSH server runs, and the network behind the jump host",
        )
