"""Following logs: what was added to each comes to one thread; a source that can't be read is said and tried again."""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.grown import Grown

# A source is asked once in so long, and answers as soon as there is something.
WAIT_S = 8.0
FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 15.0
# What was read and not yet shown; a log that grows faster than it is shown waits.
MOST_UNSHOWN = 1000


class Source(Protocol):
    """A log that can be read on from a cursor. Raises HostFailure."""

    def follow(
        self, cursor: str | None, *, lines: int = 100, since_s: float | None = None, wait_s: float = 0.0
    ) -> Grown: ...


@dataclass(frozen=True)
class Line:
    text: str


@dataclass(frozen=True)
class Notice:
    """Something about the source itself: it does not answer, it answers again, lines are lost."""

    text: str


class Watching:
    """Follows sources, each in a thread that ends with the process. Never ends by itself."""

    def __init__(self, sources: Mapping[str, Source], lines: int, since_s: float | None) -> None:
        self._sources = sources
        self._lines = lines
        self._since_s = since_s
        self._began = time.monotonic()
        self._news: queue.Queue[tuple[str, Line | Notice]] = queue.Queue(MOST_UNSHOWN)

    def run(self) -> Iterator[tuple[str, Line | Notice]]:
        for name, source in self._sources.items():
            threading.Thread(
                target=self._one, args=(name, source), daemon=True, name=f"fleetctl-{name}"
            ).start()
        while True:
            yield self._news.get()

    def _one(self, name: str, source: Source) -> None:
        cursor: str | None = None
        pause = 0.0
        while True:
            try:
                grown = self._read(source, cursor)
            except HostFailure as failure:
                if not pause:
                    self._say(name, Notice(f"{failure} It is tried again."))
                pause = min(LONGEST_PAUSE_S, pause * 2 or FIRST_PAUSE_S)
                time.sleep(pause * random.uniform(0.5, 1.0))
                continue
            except Exception as error:  # a thread's end, of which nobody else would hear
                self._say(name, Notice(f"this is a bug in fleetctl: {type(error).__name__}: {error}"))
                return
            if pause:
                self._say(name, Notice(f"{name} answers again"))
                pause = 0.0
            if grown.lost:
                self._say(name, Notice(f"{name}: lines are missing here: its log was begun anew meanwhile"))
            for text in grown.lines:
                self._say(name, Line(text))
            cursor = grown.cursor

    def _read(self, source: Source, cursor: str | None) -> Grown:
        if cursor is not None:
            return source.follow(cursor, wait_s=WAIT_S)
        # Who is reached late is asked for as much more.
        since_s = None if self._since_s is None else self._since_s + time.monotonic() - self._began
        return source.follow(None, lines=self._lines, since_s=since_s)

    def _say(self, name: str, said: Line | Notice) -> None:
        self._news.put((name, said))
