"""What went wrong with a machine, said so that a tired person can act on it."""

from __future__ import annotations

from dataclasses import dataclass

# Kinds after which nothing is known about the machine: an agent there may still serve.
UNREACHABLE_KINDS = frozenset(
    {
        "dns",  # the address has no IP
        "refused",  # nothing listens on the SSH port
        "timeout",  # no answer in time, in whichever phase
        "route",  # the network says that it cannot be reached
        "lost",  # the connection broke; what was being done has an unknown outcome
        "protocol",  # something answers that is no SSH server we can talk to
        "jump",  # the way there is broken
        "host-key-unknown",
        "host-key-changed",
        "host-key-revoked",
        "auth",  # the host accepts none of our keys
        "identity",  # our own key cannot be used
    }
)


@dataclass(eq=False)
class HostFailure(Exception):
    """One machine did not do what was asked. `str()` is one paragraph: host, cause, next step.

    `kind` is a word for programs: one of UNREACHABLE_KINDS, or "command", "output", "python", "environment",
    "disk", "permission", "sftp", "release", "conflict", "start", "stop", "port", "device", "sudo", "busy", "power",
    "config".
    `unreachable` is true where the machine's state is unknown afterwards. `jump` names the jump host that
    failed, so that hosts behind it are not taken for that many independent losses.
    """

    host: str
    kind: str
    cause: str
    next_step: str
    jump: str | None = None

    @property
    def unreachable(self) -> bool:
        return self.kind in UNREACHABLE_KINDS

    def __str__(self) -> str:
        return f"{self.host}: {_sentence(self.cause)} {_sentence(self.next_step)}".strip()


def printable(text: str | bytes, limit: int = 1 << 20) -> str:
    """The last `limit` characters of what a machine sent, safe for a terminal, a log or a page.

    Undecodable bytes and control characters (escape sequences among them) become U+FFFD; newline and tab stay.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    text = text[-limit:].replace("\r\n", "\n")
    return "".join(c if c in "\n\t" or (c.isprintable() and c != "\x7f") else "�" for c in text)


def brief(text: str | bytes, limit: int = 400) -> str:
    """The end of what a machine sent as one line, for the middle of a sentence."""
    lines = [line.strip() for line in printable(text).splitlines()]
    line = " / ".join(part for part in lines if part)
    return line if len(line) <= limit else "..." + line[-limit:]


def _sentence(text: str) -> str:
    text = " ".join(text.split())
    return text if not text or text[-1] in ".!?" else text + "."
