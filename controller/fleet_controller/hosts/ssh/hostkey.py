"""Whether a server is the one that we know: its key, or the certificate that it shows, against known_hosts."""

from __future__ import annotations

import time
from dataclasses import dataclass

import paramiko

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.ssh import certificate
from fleet_controller.hosts.ssh.known_hosts import Answer, KnownHosts, Verdict, fingerprint
from fleet_controller.hosts.ssh.server import Server


@dataclass(frozen=True)
class ShownKey:
    """What the server showed when keys were agreed on. `certificate`: the blob of one, where it showed one."""

    key_type: str
    blob: bytes
    certificate: bytes | None

    @classmethod
    def of(cls, transport: paramiko.Transport) -> ShownKey:
        key = transport.get_remote_server_key()
        # paramiko keeps the certificate beside the key that it took out of it.
        shown = key.public_blob
        blob = key.asbytes()
        key_type = blob[4 : 4 + int.from_bytes(blob[:4], "big")].decode("ascii", "replace")
        return cls(key_type, blob, None if shown is None else shown.key_blob)

    def __str__(self) -> str:
        return f"{self.key_type} {fingerprint(self.blob)}"


def known_hosts(server: Server) -> KnownHosts:
    """Raises HostFailure where a file can't be read."""
    try:
        return KnownHosts.read(*server.known_hosts)
    except OSError as error:
        raise server.failure(
            "identity",
            f"{error.filename}, which holds the known host keys, cannot be read: {error.strerror}",
            "Correct ssh.known_hosts or the file's permissions",
        ) from error


def judge(server: Server, known: KnownHosts, shown: ShownKey, now: float) -> tuple[Answer, str | None]:
    """What known_hosts says, and why the certificate that the server showed does not count, if that is so.

    As in OpenSSH: a certificate that does not count leaves the plain key in it to be judged.
    """
    names = server.known_names
    if shown.certificate is None:
        return known.judge(names, shown.blob), None
    try:
        read = certificate.read(shown.certificate)
    except certificate.BadCertificate as error:
        return known.judge(names, shown.blob), str(error)
    if revoked := known.revoked(names, read.key, read.authority):
        return Answer(Verdict.REVOKED, revoked), None
    if read.key != shown.blob:
        return known.judge(names, shown.blob), "it is for another key"
    lines = known.authorities(names, read.authority)
    if not lines:
        why: str | None = f"its authority ({fingerprint(read.authority)}) is not among the known ones"
    else:
        why = read.trouble(server.principal, now)
    if why is None:
        return Answer(Verdict.TRUSTED, lines), None
    return known.judge(names, shown.blob), f"certificate {read.key_id!r:.120}: {why}"


def verify(server: Server, known: KnownHosts, transport: paramiko.Transport, jump: Server | None) -> None:
    """Raises HostFailure (kinds "host-key-...") unless the server is who it should be."""
    shown = ShownKey.of(transport)
    answer, certified = judge(server, known, shown, time.time())
    if answer.verdict is not Verdict.TRUSTED:
        raise _refusal(server, answer, shown, certified, jump)


def _refusal(
    server: Server, answer: Answer, shown: ShownKey, certified: str | None, jump: Server | None
) -> HostFailure:
    name, first = server.known_name, server.known_hosts[0]
    lines = ", ".join(line.place for line in answer.lines)
    also = f"; the certificate that it showed does not count: {certified}" if certified else ""
    if answer.verdict is Verdict.REVOKED:
        own = any(line.key == shown.blob for line in answer.lines)
        said = f"a key that {lines} marks" if own else f"a certificate of an authority that {lines} marks"
        return server.failure(
            "host-key-revoked",
            f"the host shows {said} as revoked ({shown}); nothing was sent to it",
            "Give the host a new key (ssh-keygen -A after removing the old) or certificate, and add what it has now"
            " to known_hosts",
        )
    if answer.verdict is Verdict.CHANGED:
        known = ", ".join(
            f"{line.place} has {line.key_type} {fingerprint(line.key)}" for line in answer.lines[:4]
        )
        path = answer.lines[0].path
        return server.failure(
            "host-key-changed",
            f"the host key changed: it shows {shown}, but {known}; nothing was sent to it{also}."
            " Either the machine was reinstalled, or another machine answers in its place",
            "Compare the fingerprint on the host's console (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub);"
            f" if it is right, remove the old key with `ssh-keygen -R '{name}' -f {path}`, then"
            f" `{keyscan(server, shown.key_type, jump)}`",
        )
    authority = f"; {lines} names a certificate authority, but the host shows no certificate" if lines else ""
    return server.failure(
        "host-key-unknown",
        f"the host key is not known: it shows {shown}, and {first} has no key for {name}"
        + (also or authority)
        + "; nothing was sent to it",
        f"Compare the fingerprint, then run `{keyscan(server, shown.key_type, jump)}`, or let fleetctl note down the"
        " keys of new hosts with `fleetctl up --trust-on-first-use`",
    )


def keyscan(server: Server, key_type: str, jump: Server | None) -> str:
    """The command line that notes down this server's key."""
    kind = "rsa" if "rsa" in key_type else "ecdsa" if "ecdsa" in key_type else "ed25519"
    scan = f"ssh-keyscan -p {server.port} -t {kind} {server.address}"
    if jump is not None:
        scan = f"ssh -p {jump.port} {jump.user}@{jump.address} {scan}"
    if server.key_alias:
        scan = f"{scan} | sed 's/^[^ ]*/{server.key_alias}/'"
    return f"{scan} >> {server.known_hosts[0]}"
