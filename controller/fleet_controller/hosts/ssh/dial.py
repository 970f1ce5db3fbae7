"""A TCP connection to a server, within a time limit, and what it means when there is none."""

from __future__ import annotations

import errno
import ipaddress
import socket
import time

from fleet_controller.hosts.bounded import bounded
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.ssh.server import Server

_Place = tuple[int, int, int, str, tuple[str, int]]


def dial(server: Server, until: float) -> socket.socket:
    """Connected before `until` (monotonic seconds). Raises HostFailure."""
    places = _resolve(server, until)
    failure: OSError = TimeoutError()
    for number, (family, kind, proto, _, place) in enumerate(places):
        # What is left of the time is shared by the addresses not yet tried.
        share = (until - time.monotonic()) / (len(places) - number)
        if share <= 0:
            break
        stream = socket.socket(family, kind, proto)
        try:
            stream.settimeout(share)
            stream.connect(place)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if server.keepalive and hasattr(socket, "TCP_USER_TIMEOUT"):
                # Three keepalives unanswered and the kernel gives the connection up.
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(3000 * server.keepalive))
            return stream
        except OSError as error:
            stream.close()
            failure = error
    raise _not_dialled(server, failure) from failure


def _resolve(server: Server, until: float) -> list[_Place]:
    def ask() -> list[_Place]:
        return socket.getaddrinfo(server.address, server.port, type=socket.SOCK_STREAM)  # type: ignore[return-value]

    try:
        if _is_ip(server.address):
            return ask()
        return bounded(ask, max(0.1, until - time.monotonic()))
    except (socket.gaierror, UnicodeError) as error:
        raise server.failure(
            "dns",
            f"the name {server.address} has no address ({getattr(error, 'strerror', None) or error})",
            "Correct the host's address, or this machine's name resolution",
        ) from error
    except TimeoutError as error:
        raise server.failure(
            "dns",
            f"the name server did not answer for {server.address} within {server.connect_timeout:g} s",
            "Write the IP address, or mend this machine's name resolution",
        ) from error


def _not_dialled(server: Server, error: OSError) -> HostFailure:
    where = server.where
    if isinstance(error, TimeoutError):
        return server.failure(
            "timeout",
            f"no answer from {where} within {server.connect_timeout:g} s",
            "Check that the machine is on, and that no firewall drops the connection",
        )
    if isinstance(error, ConnectionRefusedError):
        return server.failure(
            "refused",
            f"{where} refuses the connection: no SSH server listens there",
            "Check ssh.port and that sshd runs on the host",
        )
    if error.errno in (
        errno.EHOSTUNREACH,
        errno.ENETUNREACH,
        errno.EADDRNOTAVAIL,
        errno.EACCES,
        errno.EPERM,
    ):
        return server.failure(
            "route",
            f"{where} cannot be reached: {error.strerror}",
            "Check that the machine is on, its address, and the network between",
        )
    return server.failure(
        "lost",
        f"connecting to {where} failed: {error.strerror or error}",
        "Check the network, then try again",
    )


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True
