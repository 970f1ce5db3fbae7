"""One authenticated SSH connection per host, made when it is needed and made again when it broke.

The order is fixed: reach the port, verify the host key, only then log in. Nothing is sent to a host whose key
is not the known one. Every phase has a time limit; connecting as a whole takes at most twice `connect_timeout`.
"""

from __future__ import annotations

import base64
import errno
import getpass
import ipaddress
import logging
import random
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import paramiko
from paramiko.common import OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
from paramiko.ssh_exception import IncompatiblePeer

from fleet_controller.hosts.bounded import bounded
from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.ssh import identity
from fleet_controller.hosts.ssh.known_hosts import KnownHosts, Verdict, fingerprint, name_of
from fleet_controller.spec import FleetSpec, SshSpec

# What paramiko still offers and no current server needs: CBC ciphers (plaintext recovery, CVE-2008-5161), 3DES
# (Sweet32), MACs on SHA-1 and MD5.
WEAK = {
    "ciphers": ["aes128-cbc", "aes192-cbc", "aes256-cbc", "3des-cbc"],
    "macs": ["hmac-sha1", "hmac-sha1-96", "hmac-md5", "hmac-md5-96"],
}
# sshd opens at most 10 sessions per connection (MaxSessions), and sending a file takes two.
MAX_SESSIONS = 5
MAX_JUMPS = 8
# A refused login is not repeated at once: sshd and fail2ban count. At most 3 in 10 minutes.
REFUSED_FOR_S = 200.0

# paramiko logs what it also raises, with stack traces; it is said once, by the failure.
_LOG = logging.getLogger("fleet_controller.paramiko")
_LOG.addHandler(logging.NullHandler())
_LOG.propagate = False


@dataclass(frozen=True)
class Server:
    """Where and as whom to log in. `label` is how messages name it."""

    label: str
    address: str
    ssh: SshSpec

    @property
    def user(self) -> str:
        return self.ssh.user or getpass.getuser()

    @property
    def known_name(self) -> str:
        return name_of(self.address, self.ssh.port)


class SshConnection:
    """The connection to one server, through `jump` where one is given. Safe for threads."""

    def __init__(self, server: Server, jump: SshConnection | None = None) -> None:
        self.server = server
        self.jump = jump
        self._slots = threading.BoundedSemaphore(MAX_SESSIONS)
        self._lock = threading.Lock()
        self._transport: paramiko.Transport | None = None
        self._refusal: tuple[HostFailure, float, object] | None = None

    def __repr__(self) -> str:
        way = f" via {self.jump.server.label}" if self.jump else ""
        return f"<SshConnection {self.server.user}@{self.server.address}:{self.server.ssh.port}{way}>"

    @contextmanager
    def slot(self) -> Iterator[None]:
        """One of the MAX_SESSIONS that may be at work at once."""
        wait = self.server.ssh.command_timeout
        if not self._slots.acquire(timeout=wait):
            raise self._failure(
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
        timeout = self.server.ssh.connect_timeout
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
                    raise self.lost("opening a channel", error) from error
        raise AssertionError("unreachable")

    def _living(self) -> tuple[paramiko.Transport, bool]:
        """The connection, and whether it was made just now."""
        with self._lock:
            if self._transport is not None:
                if self._transport.is_active() and self._transport.is_authenticated():
                    return self._transport, False
                self._transport.close()
                self._transport = None
            self._transport = self._connect()
            return self._transport, True

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
        server = self.server
        self._still_refused()
        known = self._known_hosts()
        transport = self._negotiate(known)
        try:
            self._verify(transport, known)
            self._login(transport)
        except BaseException:
            transport.close()
            raise
        if server.ssh.keepalive:
            transport.set_keepalive(max(1, round(server.ssh.keepalive)))
        return transport

    def _negotiate(self, known: KnownHosts) -> paramiko.Transport:
        """Reach the port and agree on keys. A server that hangs up early is busy (MaxStartups): try again."""
        timeout = self.server.ssh.connect_timeout
        until = time.monotonic() + timeout
        pause = 0.1
        while True:
            stream = self._stream(until)
            transport = _transport(stream, max(0.1, until - time.monotonic()))
            types = known.key_types(self.server.known_name)
            _prefer(transport, types)
            try:
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
                raise self._not_negotiated(error, left) from error

    def _not_negotiated(self, error: Exception, left: float) -> HostFailure:
        where = f"{self.server.address} port {self.server.ssh.port}"
        if left <= 0.05 or _timed_out(error):
            return self._failure(
                "timeout",
                f"{where} accepted the connection but did not complete the SSH greeting within"
                f" {self.server.ssh.connect_timeout:g} s",
                "The machine or its sshd hangs, or something else listens there; look at its console, or correct"
                " ssh.port",
            )
        if isinstance(error, IncompatiblePeer):
            return self._failure(
                "protocol",
                f"{where} and fleetctl have no algorithm in common ({brief(str(error))})",
                "Update the SSH server; CBC ciphers, 3DES and MACs with MD5 or SHA-1 are not used",
            )
        return self._failure(
            "protocol",
            f"{where} does not speak SSH, or hung up before it greeted ({brief(str(error)) or 'connection closed'})",
            "Correct ssh.port; if it is the right one, see the host's sshd log (MaxStartups, DenyUsers, hosts.deny)",
        )

    def _stream(self, until: float) -> socket.socket | paramiko.Channel:
        if self.jump is not None:
            try:
                return self.jump.tunnel(self.server.address, self.server.ssh.port)
            except HostFailure as failure:
                if failure.kind == "tunnel":
                    raise self._failure("refused", failure.cause, failure.next_step) from failure
                raise HostFailure(
                    self.server.label,
                    "jump",
                    f"the way there is broken: jump host {failure.host}: {failure.cause}",
                    failure.next_step,
                    failure.jump or self.jump.server.label,
                ) from failure
        return self._dial(until)

    def _dial(self, until: float) -> socket.socket:
        address, port = self.server.address, self.server.ssh.port
        places = self._resolve(until)
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
                if self.server.ssh.keepalive and hasattr(socket, "TCP_USER_TIMEOUT"):
                    # Three keepalives unanswered and the kernel gives the connection up.
                    limit = round(3000 * self.server.ssh.keepalive)
                    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, limit)
                return stream
            except OSError as error:
                stream.close()
                failure = error
        raise self._not_dialled(f"{address} port {port}", failure) from failure

    def _resolve(self, until: float) -> list[tuple[int, int, int, str, tuple[str, int]]]:
        address, port = self.server.address, self.server.ssh.port

        def ask() -> list[tuple[int, int, int, str, tuple[str, int]]]:
            return socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]

        try:
            if _is_ip(address):
                return ask()
            return bounded(ask, max(0.1, until - time.monotonic()))
        except (socket.gaierror, UnicodeError) as error:
            raise self._failure(
                "dns",
                f"the name {address} has no address ({getattr(error, 'strerror', None) or error})",
                "Correct the host's address, or this machine's name resolution",
            ) from error
        except TimeoutError as error:
            raise self._failure(
                "dns",
                f"the name server did not answer for {address} within {self.server.ssh.connect_timeout:g} s",
                "Write the IP address, or mend this machine's name resolution",
            ) from error

    def _not_dialled(self, where: str, error: OSError) -> HostFailure:
        if isinstance(error, TimeoutError):
            return self._failure(
                "timeout",
                f"no answer from {where} within {self.server.ssh.connect_timeout:g} s",
                "Check that the machine is on, and that no firewall drops the connection",
            )
        if isinstance(error, ConnectionRefusedError):
            return self._failure(
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
            return self._failure(
                "route",
                f"{where} cannot be reached: {error.strerror}",
                "Check that the machine is on, its address, and the network between",
            )
        return self._failure(
            "lost",
            f"connecting to {where} failed: {error.strerror or error}",
            "Check the network, then try again",
        )

    # -- host key ------------------------------------------------------------------------------------------

    def _known_hosts(self) -> KnownHosts:
        path = self.server.ssh.known_hosts
        try:
            return KnownHosts.read(path)
        except OSError as error:
            raise self._failure(
                "identity",
                f"{path}, which holds the known host keys, cannot be read: {error.strerror}",
                "Correct ssh.known_hosts or the file's permissions",
            ) from error

    def _verify(self, transport: paramiko.Transport, known: KnownHosts) -> None:
        key = transport.get_remote_server_key()
        name, blob = self.server.known_name, key.asbytes()
        answer = known.judge(name, blob)
        if answer.verdict is Verdict.TRUSTED:
            return
        shown = f"{key.get_name()} {fingerprint(blob)}"
        lines = ", ".join(f"{known.path}:{line.number}" for line in answer.lines)
        if answer.verdict is Verdict.REVOKED:
            raise self._failure(
                "host-key-revoked",
                f"the host shows a key that {lines} marks as revoked ({shown}); nothing was sent to it",
                "Give the host a new key (ssh-keygen -A after removing the old), and add that one to known_hosts",
            )
        if answer.verdict is Verdict.CHANGED:
            raise self._failure(
                "host-key-changed",
                f"the host key changed: it shows {shown}, but {lines} has another key; nothing was sent to it."
                " Either the machine was reinstalled, or another machine answers in its place",
                "Compare the fingerprint on the host's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub);"
                f" if it is right, remove the old key with `ssh-keygen -R '{name}' -f {known.path}`, then"
                f" `{self.keyscan(key.get_name())}`",
            )
        certified = f"; {lines} names a certificate authority, but host certificates cannot be checked yet"
        raise self._failure(
            "host-key-unknown",
            f"the host key is not known: it shows {shown}, and {known.path} has no key for {name}"
            + (certified if answer.lines else "")
            + "; nothing was sent to it",
            f"Compare the fingerprint, then run `{self.keyscan(key.get_name())}`, or let fleetctl note down the keys"
            " of new hosts with `fleetctl up --trust-on-first-use`",
        )

    def keyscan(self, key_type: str) -> str:
        """The command line that notes down this server's key."""
        kind = "rsa" if "rsa" in key_type else "ecdsa" if "ecdsa" in key_type else "ed25519"
        scan = f"ssh-keyscan -p {self.server.ssh.port} -t {kind} {self.server.address}"
        if self.jump is not None:
            at = self.jump.server
            scan = f"ssh -p {at.ssh.port} {at.user}@{at.address} {scan}"
        return f"{scan} >> {self.server.ssh.known_hosts}"

    def shown_key(self) -> tuple[str, bytes]:
        """Type and blob of the key that the server shows, without logging in or trusting it."""
        transport = self._negotiate(KnownHosts(Path(), ()))
        try:
            key = transport.get_remote_server_key()
            return key.get_name(), key.asbytes()
        finally:
            transport.close()

    # -- login ---------------------------------------------------------------------------------------------

    def _still_refused(self) -> None:
        if self._refusal is not None:
            failure, until, files = self._refusal
            if time.monotonic() < until and files == self._key_files():
                raise replace(failure)
            self._refusal = None

    def _key_files(self) -> object:
        """Changes when the key file or known_hosts does, so that a mended login is tried at once."""
        stamps = []
        for path in (self.server.ssh.identity_file, self.server.ssh.known_hosts):
            with suppress(OSError):
                stamps.append(path.stat().st_mtime_ns if path else 0)
        return stamps

    def _login(self, transport: paramiko.Transport) -> None:
        with identity.identities(self.server.label, self.server.ssh.identity_file) as found:
            self._try(transport, found)

    def _try(self, transport: paramiko.Transport, found: list[identity.Identity]) -> None:
        user, timeout = self.server.user, self.server.ssh.connect_timeout
        until = time.monotonic() + timeout
        tried = []
        for one in found:
            tried.append(identity.describe(one))
            transport.auth_timeout = max(0.1, until - time.monotonic())
            try:
                more = transport.auth_publickey(user, one.key)
            except paramiko.BadAuthenticationType as error:
                raise self._refused_login(
                    f"it does not let {user} log in with a key (it offers: {', '.join(error.allowed_types)})",
                    "Allow it in the host's sshd_config: PubkeyAuthentication yes",
                ) from error
            except paramiko.AuthenticationException as error:
                if "timeout" in str(error).lower():
                    raise self._failure(
                        "timeout",
                        f"logging in as {user} was not done within {timeout:g} s",
                        "The host or its user database (LDAP, DNS) hangs; see its sshd log",
                    ) from error
                if transport.is_active():
                    continue
                break  # sshd hung up: too many keys
            except (paramiko.SSHException, EOFError, OSError) as error:
                if transport.is_active():
                    continue
                raise self.lost(f"logging in as {user}", error) from error
            if not more:
                return
            raise self._refused_login(
                f"it took the key {tried[-1]}, but wants more than a key ({', '.join(more)})",
                "Let a key be enough for this user: AuthenticationMethods publickey",
            )
        raise self._refused_login(
            f"it does not accept the login of {user}; tried {'; '.join(tried)}",
            f"Put the right public key into ~{user}/.ssh/authorized_keys on the host (`ssh-copy-id -p"
            f" {self.server.ssh.port} {user}@{self.server.address}`), or correct ssh.user or ssh.identity_file",
        )

    def _refused_login(self, cause: str, next_step: str) -> HostFailure:
        failure = self._failure("auth", cause, next_step)
        self._refusal = (failure, time.monotonic() + REFUSED_FOR_S, self._key_files())
        return failure

    # -- failures ------------------------------------------------------------------------------------------

    def lost(self, doing: str, error: BaseException | None) -> HostFailure:
        why = brief(str(error)) if error is not None else ""
        return self._failure(
            "lost",
            f"the connection broke while {doing}" + (f" ({why})" if why else ""),
            "Check the machine and the network; whether it was done shows `fleetctl status`",
        )

    def _channel_refused(
        self, kind: str, to: tuple[str, int] | None, error: paramiko.ChannelException
    ) -> HostFailure:
        if to is None:
            return self._failure(
                "protocol",
                f"the host opens no session ({brief(error.text)})",
                "Raise MaxSessions in the host's sshd_config, or see its sshd log",
            )
        where = f"{to[0]} port {to[1]}"
        if error.code == OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED:
            return self._failure(
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

    def _failure(self, kind: str, cause: str, next_step: str) -> HostFailure:
        return HostFailure(self.server.label, kind, cause, next_step)


class Connections:
    """The SSH connections of a fleet: one per server, shared by those who go there and those who go through."""

    def __init__(self, spec: FleetSpec) -> None:
        self._spec = spec
        self._lock = threading.RLock()
        self._made: dict[object, SshConnection] = {}

    def to_host(self, name: str) -> SshConnection:
        """The connection to a host of the inventory. Raises HostFailure (kind "config") for jumps in a circle."""
        with self._lock:
            return self._to_host(name, ())

    def _to_host(self, name: str, waiting: tuple[str, ...]) -> SshConnection:
        if name in waiting or len(waiting) >= MAX_JUMPS:
            circle = " -> ".join((*waiting, name))
            raise HostFailure(
                waiting[0], "config", f"its jump hosts go round in a circle: {circle}", "Correct ssh.jump"
            )
        if name not in self._made:
            host = self._spec.host(name)
            jump = None
            for word in (host.ssh.jump or "").split(","):
                if word:
                    jump = self._to_jump(word.strip(), jump, host.ssh, (*waiting, name))
            self._made[name] = SshConnection(Server(name, host.address, host.ssh), jump)
        return self._made[name]

    def _to_jump(
        self, word: str, before: SshConnection | None, ssh: SshSpec, waiting: tuple[str, ...]
    ) -> SshConnection:
        if before is None and any(host.name == word for host in self._spec.hosts):
            return self._to_host(word, waiting)
        user, _, rest = word.rpartition("@")
        host, port = _split_port(rest)
        known = next((one for one in self._spec.hosts if one.name == host), None)
        base = known.ssh if known else ssh
        update = {"user": user or base.user, "port": port or (base.port if known else 22), "jump": None}
        server = Server(host, known.address if known else host, base.model_copy(update=update))
        key = (server.user, server.address, server.ssh, id(before))
        return self._made.setdefault(key, SshConnection(server, before))

    def close(self) -> None:
        with self._lock:
            made = list(self._made.values())
        # Those behind a jump host first: their streams run inside its connection.
        for one in sorted(made, key=_depth, reverse=True):
            one.close()


def _depth(connection: SshConnection) -> int:
    return 0 if connection.jump is None else 1 + _depth(connection.jump)


def _split_port(text: str) -> tuple[str, int | None]:
    """HOST, HOST:PORT, [V6]:PORT or a bare IPv6 address."""
    host, colon, port = text.rpartition(":")
    if colon and port.isdigit() and (":" not in host or host.startswith("[")):
        return host.removeprefix("[").removesuffix("]"), int(port)
    return text.removeprefix("[").removesuffix("]"), None


def _is_ip(address: str) -> bool:
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return False
    return True


def _transport(stream: socket.socket | paramiko.Channel, timeout: float) -> paramiko.Transport:
    transport = paramiko.Transport(stream, disabled_algorithms=WEAK)
    transport.set_log_channel(_LOG.name)
    transport.banner_timeout = timeout
    transport.handshake_timeout = timeout
    transport.channel_timeout = timeout
    return transport


def _prefer(transport: paramiko.Transport, known_types: list[str]) -> None:
    """Ask for a host key of a type that is known, so that a server with several shows the one we can check."""
    options = transport.get_security_options()
    wanted = []
    for known in known_types:
        wanted += ["rsa-sha2-512", "rsa-sha2-256"] if known == "ssh-rsa" else [known]
    offered = tuple(options.key_types)
    first = tuple(name for name in wanted if name in offered)
    options.key_types = first + tuple(name for name in offered if name not in first)


def _timed_out(error: BaseException) -> bool:
    # paramiko wraps the time-out of the greeting into an SSHException's text.
    return (
        isinstance(error, TimeoutError)
        or "timed out" in str(error).lower()
        or "timeout" in str(error).lower()
    )


def known_line(name: str, key_type: str, blob: bytes) -> str:
    """A line of known_hosts."""
    return f"{name} {key_type} {base64.b64encode(blob).decode()}"
