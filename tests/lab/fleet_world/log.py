"""Log: what happened in the world, line by line: the witness of the invariants, and what two runs are compared by."""

from __future__ import annotations

import hashlib
from typing import Any


class Log:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, now: float, who: str, what: str, **more: Any) -> None:
        said = " ".join(f"{name}={value}" for name, value in more.items())
        self.lines.append(f"{now:9.2f} {who} {what} {said}".rstrip())

    def digest(self) -> str:
        return hashlib.sha256("\n".join(self.lines).encode()).hexdigest()
