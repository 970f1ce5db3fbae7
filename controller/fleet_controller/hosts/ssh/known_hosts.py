"""Which host keys are trusted: OpenSSH's known_hosts, read line by line. PURE but for `read`.

Lines that cannot be understood are passed over, as OpenSSH does: one broken line must not lock out a fleet.
Format: sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT".
"""

from __future__ import annotations

import base64
import binascii
import fnmatch
import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

MAX_FILE_BYTES = 8 * 1024 * 1024


class Verdict(Enum):
    TRUSTED = "trusted"
    UNKNOWN = "unknown"
    CHANGED = "changed"
    REVOKED = "revoked"


@dataclass(frozen=True)
class Line:
    """One usable line. `marker` is "", "@cert-authority" or "@revoked"; `key` the decoded blob."""

    number: int
    marker: str
    names: tuple[str, ...]
    key_type: str
    key: bytes

    def names_host(self, host: str) -> bool:
        """OpenSSH's rules: any pattern matches, unless a negated one does."""
        matched = False
        for name in self.names:
            if name.startswith("|1|"):
                matched = matched or _hashed_equal(name, host)
            elif name.startswith("!"):
                if _pattern(name[1:], host):
                    return False
            elif _pattern(name, host):
                matched = True
        return matched


@dataclass(frozen=True)
class Answer:
    """What the file says about a key, and on which lines."""

    verdict: Verdict
    lines: tuple[Line, ...]


class KnownHosts:
    """The lines of one file."""

    def __init__(self, path: Path, lines: Iterable[Line]) -> None:
        self.path = path
        self.lines = tuple(lines)

    @classmethod
    def read(cls, path: Path) -> KnownHosts:
        """An absent file knows nobody. Raises OSError for one that cannot be read."""
        try:
            with path.open("rb") as file:
                text = file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            text = ""
        return cls.parse(path, text)

    @classmethod
    def parse(cls, path: Path, text: str) -> KnownHosts:
        parsed = (_line(number, line) for number, line in enumerate(text.splitlines(), 1))
        return cls(path, [line for line in parsed if line is not None])

    def of(self, host: str) -> list[Line]:
        return [line for line in self.lines if line.names_host(host)]

    def key_types(self, host: str) -> list[str]:
        """The types of the plain keys that are known of `host`, so that the server is asked for such a one."""
        return list(dict.fromkeys(line.key_type for line in self.of(host) if not line.marker))

    def judge(self, host: str, key: bytes) -> Answer:
        """`host` is `name_of(address, port)`. A revoked key is revoked whatever other lines say."""
        lines = self.of(host)
        for marker, verdict in (("@revoked", Verdict.REVOKED), ("", Verdict.TRUSTED)):
            same = tuple(line for line in lines if line.marker == marker and line.key == key)
            if same:
                return Answer(verdict, same)
        other = tuple(line for line in lines if not line.marker)
        if other:
            return Answer(Verdict.CHANGED, other)
        return Answer(Verdict.UNKNOWN, tuple(line for line in lines if line.marker == "@cert-authority"))


def name_of(address: str, port: int) -> str:
    """How known_hosts names a server."""
    address = address.lower()
    return address if port == 22 else f"[{address}]:{port}"


def fingerprint(key: bytes) -> str:
    """As `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).rstrip(b"=").decode()


def _line(number: int, text: str) -> Line | None:
    words = text.split()
    marker = words.pop(0) if words and words[0].startswith("@") else ""
    if len(words) < 3 or words[0].startswith("#") or marker not in ("", "@cert-authority", "@revoked"):
        return None
    try:
        key = base64.b64decode(words[2], validate=True)
    except (binascii.Error, ValueError):
        return None
    # The blob begins with its own type; a line where the two differ is damaged.
    if key[4 : 4 + int.from_bytes(key[:4], "big")] != words[1].encode():
        return None
    return Line(number, marker, tuple(name for name in words[0].split(",") if name), words[1], key)


def _pattern(pattern: str, host: str) -> bool:
    # fnmatch knows [..] too, which known_hosts writes for ports: take brackets literally.
    return fnmatch.fnmatchcase(host, pattern.lower().replace("[", "[[]"))


def _hashed_equal(name: str, host: str) -> bool:
    _, _, salt, digest = [*name.split("|"), "", ""][:4]
    try:
        wanted = hmac.new(base64.b64decode(salt, validate=True), host.encode(), hashlib.sha1).digest()
        return hmac.compare_digest(wanted, base64.b64decode(digest, validate=True))
    except (binascii.Error, ValueError):
        return False
