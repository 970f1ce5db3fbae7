"""What the keeper says: answers, troubles and progress, each a line that begins with the caller's nonce."""

from __future__ import annotations

import json
import sys

_nonce = ""


def begin(nonce: str) -> None:
    """From here on every line of ours begins with `nonce`."""
    global _nonce
    _nonce = nonce


class Trouble(Exception):
    """An errand cannot be done; becomes a HostFailure of this kind, cause and next step."""

    def __init__(self, kind: str, cause: str, next_step: str) -> None:
        super().__init__(cause)
        self.kind = kind
        self.cause = cause
        self.next_step = next_step


def say(word: str, value: object) -> None:
    sys.stdout.write(f"\n{_nonce} {word} {json.dumps(value)}\n")
    sys.stdout.flush()
