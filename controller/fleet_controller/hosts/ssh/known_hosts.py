"""Which host keys are trusted: OpenSSH's known_hosts files, read line by line. PURE but for `read`.

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

    path: Path
    number: int
    marker: str
    names: tuple[str, ...]
    key_type: str
    key: bytes

    @property
    def place(self) -> str:
        return f"{self.path}:{self.number}"

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
    """The lines of some files, in order."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self.lines = tuple(lines)

    @classmethod
    def read(cls, *paths: Path) -> KnownHosts:
        """An absent file knows nobody. Raises OSError, with its `filename`, for one that cannot be read."""
        lines: list[Line] = []
        for path in paths:
            try:
                with path.open("rb") as file:
                    text = file.read(MAX_FILE_BYTES).decode("utf-8", "replace")
            except FileNotFoundError:
                continue
            lines += cls.parse(path, text).lines
        return cls(lines)

    @classmethod
    def parse(cls, path: Path, text: str) -> KnownHosts:
        parsed = (_line(path, number, line) for number, line in enumerate(text.splitlines(), 1))
        return cls(line for line in parsed if line is not None)

    def of(self, *names: str) -> list[Line]:
        """The lines that name one of `names`."""
        return [line for line in self.lines if any(line.names_host(name) for name in names)]

    def key_types(self, *names: str) -> list[str]:
        """The types of the plain keys that are known, so that the server is asked for such a one."""
        return list(dict.fromkeys(line.key_type for line in self.of(*names) if not line.marker))

    def has_authority(self, *names: str) -> bool:
        return any(line.marker == "@cert-authority" for line in self.of(*names))

    def revoked(self, names: tuple[str, ...], *keys: bytes) -> tuple[Line, ...]:
        """The lines that revoke one of `keys`: a server's key, or the authority that vouches for it."""
        return tuple(line for line in self.of(*names) if line.marker == "@revoked" and line.key in keys)

    def authorities(self, names: tuple[str, ...], key: bytes) -> tuple[Line, ...]:
        """The lines by which `key` may vouch for the server."""
        return tuple(line for line in self.of(*names) if line.marker == "@cert-authority" and line.key == key)

    def judge(self, names: tuple[str, ...], key: bytes) -> Answer:
        """About a plain key. `names` as `known_names` gives them; a revoked key is revoked whatever other lines say.

        The second name counts only where the first has no plain key at all.
        """
        if revoked := self.revoked(names, key):
            return Answer(Verdict.REVOKED, revoked)
        for name in names:
            plain = tuple(line for line in self.of(name) if not line.marker)
            if same := tuple(line for line in plain if line.key == key):
                return Answer(Verdict.TRUSTED, same)
            if plain and name == names[0]:
                return Answer(Verdict.CHANGED, plain)
        authorities = tuple(line for line in self.of(*names) if line.marker == "@cert-authority")
        return Answer(Verdict.UNKNOWN, authorities)


def known_names(address: str, port: int) -> tuple[str, ...]:
    """The names under which a server may stand, the best first: OpenSSH looks without the port after with it."""
    best = name_of(address, port)
    return (best,) if port == 22 else (best, address.lower())


def name_of(address: str, port: int) -> str:
    """How known_hosts names a server."""
    address = address.lower()
    return address if port == 22 else f"[{address}]:{port}"


def fingerprint(key: bytes) -> str:
    """As `ssh-keygen -l` prints it."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(key).digest()).rstrip(b"=").decode()


def known_line(name: str, key_type: str, blob: bytes) -> str:
    """A line of known_hosts."""
    return f"{name} {key_type} {base64.b64encode(blob).decode()}"


def _line(path: Path, number: int, text: str) -> Line | None:
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
    return Line(path, number, marker, tuple(name for name in words[0].split(",") if name), words[1], key)


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
