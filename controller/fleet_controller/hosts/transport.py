"""How a machine is reached: run a command there, put a file there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from fleet_controller.hosts.command import Command

# A command that says more than this is stopped: nothing we run has that much to say.
MAX_TOTAL_OUTPUT = 64 * 1024 * 1024

Hear = Callable[[bytes], None]
Progress = Callable[[int, int], None]
# Waits until so many more bytes may be sent.
Pace = Callable[[int], None]


@dataclass(frozen=True)
class Result:
    """What a command answered. `status` is its exit status, negative for a signal.

    Of output over the command's `output_limit` the beginning and the end are kept, and `truncated` is true.
    """

    status: int
    stdout: bytes
    stderr: bytes
    truncated: bool = False


class Transport(Protocol):
    """The way to one machine. All methods raise HostFailure; all may be called from several threads."""

    def run(self, command: Command, hear: Hear | None = None, hear_error: Hear | None = None) -> Result:
        """Run and wait; a status other than 0 is no failure.

        `hear` gets stdout piece by piece meanwhile, `hear_error` stderr.
        """
        ...

    def put(
        self,
        data: bytes | Path,
        path: str,
        mode: int,
        progress: Progress | None = None,
        sha256: str | None = None,
        pace: Pace | None = None,
    ) -> int:
        """Write a file so that `path` is either untouched or complete; the bytes that were sent.

        `progress` hears (bytes there, bytes in all). With `sha256`, which the content must have, the part that a
        broken connection left is gone on with. `pace` is called before each piece is sent.
        """
        ...

    def close(self) -> None: ...


def part_name(name: str, mark: str) -> str:
    """What a file is called while it is on its way; `mark` tells the content, or the try."""
    return f".{name[:100]}.{mark}.part"


class Output:
    """The beginning and the end of a stream, at most `limit` bytes together."""

    def __init__(self, limit: int) -> None:
        self._head_limit = limit // 2
        self._tail_limit = limit - limit // 2
        self._head = bytearray()
        self._tail = bytearray()
        self.total = 0

    def add(self, data: bytes) -> None:
        self.total += len(data)
        room = self._head_limit - len(self._head)
        if room > 0:
            self._head += data[:room]
            data = data[room:]
        self._tail += data
        if len(self._tail) > 2 * self._tail_limit:
            del self._tail[: -self._tail_limit]

    @property
    def truncated(self) -> bool:
        return self.total > self._head_limit + self._tail_limit

    def value(self) -> bytes:
        return bytes(self._head + self._tail[-self._tail_limit :])
