"""One answer on its way to one client: what was said and not read yet, and how it ended. In one event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from fleet_agent.generate.stops import Stops
from fleet_wire.refusal import Refusal

Finish = Literal["stop", "length"]

# A sequence with that many characters which nobody has read is held.
HOLD_AT = 65_536


@dataclass(frozen=True, slots=True)
class Wish:
    """What a client asks for. `request` is handed to the model as it is; at most `max_tokens` pieces come of it."""

    request: dict[str, Any]
    max_tokens: int
    stop: tuple[str, ...] = ()


class Trace(Protocol):
    """What is told about a sequence where traces are wanted; see tracing/."""

    def sent(self, size: int) -> None: ...
    def ended(self, refusal: Refusal | None) -> None: ...
    def abandoned(self) -> None: ...


@dataclass(slots=True, eq=False)
class Sequence:
    """`read` it once. `tokens` were said so far; `prompt_tokens` is None where the model doesn't count them.

    `stalled`: the timer of one that is held, since too much of it isn't read; `on_room` is called when it may go on.
    """

    id: int
    wish: Wish
    started: float
    on_room: Callable[[], None]
    trace: Trace | None = None
    tokens: int = 0
    prompt_tokens: int | None = None
    said_at: float | None = None
    stalled: asyncio.TimerHandle | None = None
    finish: Finish | None = None
    refusal: Refusal | None = None
    timer: asyncio.TimerHandle | None = None
    stops: Stops = field(init=False)
    _unread: list[str] = field(default_factory=list)
    _characters: int = 0
    _news: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.stops = Stops(self.wish.stop)

    @property
    def over(self) -> bool:
        return self.finish is not None or self.refusal is not None

    @property
    def full(self) -> bool:
        return self._characters > HOLD_AT

    def say(self, text: str) -> None:
        """More of the answer; called for every token, so that a reader knows of the first one at once."""
        if text:
            self._unread.append(text)
            self._characters += len(text)
        self._news.set()

    def end(self, ended: Finish | Refusal) -> None:
        if isinstance(ended, Refusal):
            self.refusal = ended
        else:
            self.finish = ended
        self._news.set()

    async def read(self) -> AsyncIterator[str]:
        """What is there, as soon as there is something. Raises Refusal where it ends in one."""
        while True:
            await self._news.wait()
            self._news.clear()
            text, self._characters = "".join(self._unread), 0
            self._unread.clear()
            if text:
                yield text
            if self._unread:
                continue  # it went on while the reader was busy
            if self.stalled is not None:
                self.on_room()
            if self.refusal is not None:
                raise self.refusal
            if self.finish is not None:
                return
