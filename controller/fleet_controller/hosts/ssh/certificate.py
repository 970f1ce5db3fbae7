"""Host certificates: what one says, and whether an authority may vouch with it for a server now. PURE.

Format and rules: OpenSSH's PROTOCOL.certkeys, and sshkey_cert_check_host() in its sshkey.c.
"""

from __future__ import annotations

from dataclasses import dataclass

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from paramiko.pkey import UnknownKeyType

SUFFIX = "-cert-v01@openssh.com"
_HOST = 2
# How many fields make up the public key, between the nonce and the serial number.
_KEY_FIELDS = {
    "ssh-ed25519": 1,
    "ssh-rsa": 2,
    "ecdsa-sha2-nistp256": 2,
    "ecdsa-sha2-nistp384": 2,
    "ecdsa-sha2-nistp521": 2,
}
_KEYS: dict[str, type[paramiko.PKey]] = {
    "ssh-ed25519": paramiko.Ed25519Key,
    "ssh-rsa": paramiko.RSAKey,
    "ecdsa-sha2-nistp256": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp384": paramiko.ECDSAKey,
    "ecdsa-sha2-nistp521": paramiko.ECDSAKey,
}
# RSA authorities must not sign with SHA-1 (OpenSSH's CASignatureAlgorithms).
_SIGNATURES = {
    "ssh-ed25519": ("ssh-ed25519",),
    "ssh-rsa": ("rsa-sha2-512", "rsa-sha2-256"),
    "ecdsa-sha2-nistp256": ("ecdsa-sha2-nistp256",),
    "ecdsa-sha2-nistp384": ("ecdsa-sha2-nistp384",),
    "ecdsa-sha2-nistp521": ("ecdsa-sha2-nistp521",),
}


class BadCertificate(ValueError):
    """It is damaged, or not signed by the key that it names."""


@dataclass(frozen=True)
class Certificate:
    """`key` and `authority` are blobs of plain public keys; times in Unix seconds, `until` excluded."""

    key: bytes
    authority: bytes
    key_id: str
    is_host: bool
    principals: tuple[str, ...]
    since: int
    until: int
    critical: tuple[str, ...]

    def trouble(self, name: str, now: float) -> str | None:
        """Why it does not vouch for the server `name` now; None: it does. No principals: any name, as in OpenSSH."""
        if not self.is_host:
            return "it is a user's certificate, not a host's"
        if now < self.since:
            return "it is not valid yet"
        if now >= self.until:
            return "it has expired"
        if self.principals and name not in self.principals:
            return f"it is for {', '.join(self.principals[:8])}, not for {name}"
        if self.critical:
            return f"it has the critical option {self.critical[0]}, which host certificates must not have"
        return None


def read(blob: bytes) -> Certificate:
    """The certificate in `blob`, whose signature is good. Raises BadCertificate."""
    try:
        return _read(blob)
    except BadCertificate:
        raise
    except (paramiko.SSHException, ValueError, UnsupportedAlgorithm, UnknownKeyType) as error:
        raise BadCertificate(f"it cannot be read ({error})") from error


def certified_key(blob: bytes) -> bytes:
    """The blob of the plain key in a certificate, whoever signed it. Raises BadCertificate."""
    return _key(_Fields(blob))


def _key(fields: _Fields) -> bytes:
    kind = fields.text()
    plain = kind.removesuffix(SUFFIX)
    if plain == kind or plain not in _KEY_FIELDS:
        raise BadCertificate(f"it is of the kind {kind[:60]!r}, which is not known")
    fields.string()  # nonce
    return packed(plain.encode()) + b"".join(packed(fields.string()) for _ in range(_KEY_FIELDS[plain]))


def _read(blob: bytes) -> Certificate:
    fields = _Fields(blob)
    key = _key(fields)
    fields.number(8)  # serial
    role = fields.number(4)
    key_id = fields.text()
    principals = _Fields(fields.string()).texts()
    since, until = fields.number(8), fields.number(8)
    critical = _Fields(fields.string()).texts()[::2]  # name, value, name, value
    fields.string()  # extensions
    fields.string()  # reserved
    authority = fields.string()
    signed = fields.read()
    signature = fields.string()
    if not fields.at_end():
        raise BadCertificate("it has something behind its signature")
    _verify(authority, signed, signature)
    return Certificate(key, authority, key_id, role == _HOST, principals, since, until, critical)


class _Fields:
    """The fields of an SSH message, RFC 4251 section 5. What is cut short is refused."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def string(self) -> bytes:
        return self._take(self.number(4))

    def text(self) -> str:
        return self.string().decode("utf-8", "replace")

    def texts(self) -> tuple[str, ...]:
        found = []
        while not self.at_end():
            found.append(self.text())
        return tuple(found)

    def read(self) -> bytes:
        """All that was taken so far."""
        return self._data[: self._at]

    def at_end(self) -> bool:
        return self._at == len(self._data)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise BadCertificate("it is cut short")
        taken = self._data[self._at : end]
        self._at = end
        return taken


def packed(string: bytes) -> bytes:
    return len(string).to_bytes(4, "big") + string


def _verify(authority: bytes, signed: bytes, signature: bytes) -> None:
    kind = _Fields(authority).text()
    if kind not in _SIGNATURES:
        raise BadCertificate(f"its authority has a key of the kind {kind[:60]!r}, which is not known")
    parts = _Fields(signature)
    algorithm = parts.text()
    parts.string()
    if not parts.at_end():
        raise BadCertificate("its signature is damaged")
    if algorithm not in _SIGNATURES[kind]:
        raise BadCertificate(f"it is signed with {algorithm[:60]}, which is not used")
    key = paramiko.PKey.from_type_string(kind, authority)
    if not key.verify_ssh_sig(signed, paramiko.Message(signature)):
        raise BadCertificate("its authority did not sign it")
