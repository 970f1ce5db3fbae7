"""Agreeing on keys with a server that has been reached, until its host key can be verified. Nobody logs in here."""

from __future__ import annotations

import logging
import random
import select
import socket
import time
from collections.abc import Callable

import paramiko
from paramiko.ssh_exception import IncompatiblePeer

from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.ssh.certificate import SUFFIX
from fleet_controller.hosts.ssh.gate import Gate
from fleet_controller.hosts.ssh.known_hosts import KnownHosts
from fleet_controller.hosts.ssh.server import Server

# What paramiko still offers and no current server needs: CBC ciphers (plaintext recovery, CVE-2008-5161), 3DES
# (Sweet32), MACs on SHA-1 and MD5.
WEAK = {
    "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"],
    "macs": ["hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"],
}

# paramiko logs what it also raises, with stack traces; it is said once, by the failure.
_LOG = logging.getLogger("fleet_controller.paramiko")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False

Stream = socket.socket | paramiko.Channel


class _Client(paramiko.Transport):
    """A transport that asks for host keys that can be checked: certificates too, where we have an authority."""

    def __init__(self, stream: Stream, timeout: float, known: KnownHosts, names: tuple[str, ...]) -> None:
        super().__init__(stream, disabled_algorithms=WEAK)
        self._wanted = _wanted(
            tuple(super().preferred_keys), known.key_types(*names), known.has_authority(*names)
        )
        self.set_log_channel(_LOG.name)
        self.banner_timeout = timeout
        self.handshake_timeout = timeout
        self.channel_timeout = timeout

    @property
    def preferred_keys(self) -> tuple[str, ...]:
        # paramiko names certificates last, so that a server with a key of any kind would never show one.
        return self._wanted


def _wanted(offered: tuple[str, ...], known_types: list[str], authority: bool) -> tuple[str, ...]:
    """The host keys to ask for, the best first: certificates, kinds that are known, the rest."""
    plain = [name for name in offered if not name.endswith(SUFFIX)]
    certified = [name for name in offered if name.endswith(SUFFIX)] if authority else []
    first = [name for name in plain if any(_kind(name) == known for known in known_types)]
    return (*certified, *first, *(name for name in plain if name not in first))


def _kind(algorithm: str) -> str:
    return "ssh-rsa" if algorithm.startswith("rsa-sha2-") else algorithm


def negotiate(
    server: Server,
    known: KnownHosts,
    reach: Callable[[float], Stream],
    gate: Gate,
    jump: object | None,
) -> paramiko.Transport:
    """A transport whose host key is there to be verified, within `connect_timeout`. Raises HostFailure.

    `reach` makes the stream. A server that hangs up before it greets is busy (MaxStartups): it is asked again, with
    growing pauses.
    """
    until = time.monotonic() + server.connect_timeout
    pause = 0.1
    while True:
        stream = reach(until)
        _await_greeting(stream, until)
        transport = _Client(stream, max(0.1, until - time.monotonic()), known, server.known_names)
        try:
            with gate.place(jump):
                transport.start_client(timeout=max(0.1, until - time.monotonic()))
            if not transport.initial_kex_done:
                raise TimeoutError
            return transport
        except (paramiko.SSHException, EOFError, OSError) as error:
            said = transport.remote_version
            transport.close()
            left = until - time.monotonic()
            hung_up = isinstance(error, EOFError | ConnectionError) or "banner" in str(error)
            if hung_up and "SSH-" not in str(said) and left > pause and not _timed_out(error):
                time.sleep(pause * random.uniform(0.5, 1.0))
                pause *= 2
                continue
            raise _not_negotiated(server, error, left) from error


def _await_greeting(stream: Stream, until: float) -> None:
    """Wait until the server says anything, so that a silent one holds no place in the gate.

    What it says, and whether that came in time, is for the handshake to find.
    """
    poll = select.poll()
    poll.register(stream.fileno(), select.POLLIN)
    poll.poll(1000 * max(0.0, until - time.monotonic()))


def _not_negotiated(server: Server, error: Exception, left: float) -> HostFailure:
    where = server.where
    if left <= 0.05 or _timed_out(error):
        return server.failure(
            "timeout",
            f"{where} accepted the connection but did not complete the SSH greeting within"
            f" {server.connect_timeout:g} s",
            "The machine or its sshd hangs, or something else listens there; look at its console, or correct"
            " ssh.port",
        )
    if isinstance(error, IncompatiblePeer):
        return server.failure(
            "protocol",
            f"{where} and fleetctl have no algorithm in common ({brief(str(error))})",
            "Update the SSH server; CBC ciphers, 3DES and MACs with MD5 or SHA-1 are not used",
        )
    return server.failure(
        "protocol",
        f"{where} does not speak SSH, or hung up before it greeted ({brief(str(error)) or 'connection closed'})",
        "Correct ssh.port; if it is the right one, see the host's sshd log (MaxStartups, PerSourcePenalties, DenyUsers,"
        " hosts.deny)",
    )


def _timed_out(error: BaseException) -> bool:
    # paramiko wraps the time-out of the greeting into an SSHException's text.
    return (
        isinstance(error, TimeoutError)
        or "timed out" in str(error).lower()
        or "timeout" in str(error).lower()
    )
