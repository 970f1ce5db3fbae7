"""Decides which waiting items go to the device together. PURE: no I/O, no clock; `now` is an argument (seconds).

A batch is formed from what waits, in order of arrival, as soon as the device asks for one; nobody waits for
company unless `max_queue_delay_s` says so. A request with more items than there is room for is cut and its parts
are joined again: being cut never delays it, since its last items would have gone in the later batch anyway.
Expired and cancelled requests are forgotten before a batch is formed, so that nobody computes them.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from fleet_wire.refusal import Refusal

T = TypeVar("T")

# How much one batch counts in the running mean of batch durations.
_MEMORY = 0.2


@dataclass(frozen=True, slots=True)
class Part:
    """Items start..stop of the request `request`."""

    request: int
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Batch:
    """What the device computes in one go. Its parts are in the order of the requests' arrival."""

    id: int
    parts: tuple[Part, ...]
    formed_at: float

    @property
    def size(self) -> int:
        return sum(part.size for part in self.parts)


@dataclass(frozen=True, slots=True)
class Finished(Generic[T]):
    """A request that is over: the results of its parts in order, or why there are none."""

    request: int
    outcome: list[T] | Refusal


@dataclass(frozen=True, slots=True)
class Taken:
    """What `take` decided: the batch to run now, if any, and the requests whose deadline passed while they waited."""

    batch: Batch | None
    expired: tuple[int, ...] = ()


@dataclass(slots=True)
class _Request(Generic[T]):
    count: int
    arrived: float
    deadline: float | None
    sent: int = 0
    results: dict[int, T] = field(default_factory=dict)  # by the first item's number
    returned: int = 0


class Batcher(Generic[T]):
    """The queue of one model. Sizes count items (instances), `max_queue_size` counts requests."""

    def __init__(
        self, max_batch_size: int, max_queue_delay_s: float = 0.0, max_queue_size: int = 1024
    ) -> None:
        """Raises ValueError for sizes under 1 or a negative delay."""
        if max_batch_size < 1 or max_queue_size < 1 or max_queue_delay_s < 0:
            raise ValueError("max_batch_size and max_queue_size are at least 1, max_queue_delay_s at least 0")
        self.max_batch_size = max_batch_size
        self.max_queue_delay_s = max_queue_delay_s
        self.max_queue_size = max_queue_size
        self._live: dict[int, _Request[T]] = {}
        # An OrderedDict, since a dict finds its first key slowly once many before it have been deleted.
        self._waiting: OrderedDict[int, _Request[T]] = OrderedDict()
        self._deadlines: list[tuple[float, int]] = []
        self._waiting_items = 0
        self._batches = 0
        self._batch_s: float | None = None

    def __repr__(self) -> str:
        return f"<Batcher {self.queued} queued, {self.in_flight} in flight, {self._waiting_items} items wait>"

    @property
    def queued(self) -> int:
        """Requests of which nothing has gone to the device yet."""
        return len(self._waiting) - self._head_is_cut()

    @property
    def in_flight(self) -> int:
        """Requests of which something has gone to the device."""
        return len(self._live) - self.queued

    @property
    def waiting_items(self) -> int:
        return self._waiting_items

    def add(self, request: int, count: int, now: float, deadline: float | None = None) -> None:
        """Queue `count` items under the caller's number `request`, to be answered before `deadline`.

        Raises Refusal `overloaded` (with the time the queue needs) or `deadline_exceeded`; ValueError for a number
        in use or an empty request.
        """
        if count < 1 or request in self._live:
            raise ValueError(f"request {request} is empty or already known")
        if deadline is not None and deadline <= now:
            raise Refusal("deadline_exceeded", "the deadline had passed before the request was queued")
        if self.queued >= self.max_queue_size:
            message = f"{self.queued} requests wait already (max_queue_size {self.max_queue_size})"
            raise Refusal("overloaded", message, self.expected_wait_s())
        entry: _Request[T] = _Request(count, now, deadline)
        self._live[request] = entry
        self._waiting[request] = entry
        self._waiting_items += count
        if deadline is not None:
            heapq.heappush(self._deadlines, (deadline, request))

    def expected_wait_s(self) -> float:
        """How long what waits now will keep the device busy, by the recent batches' duration; at least 1 s."""
        batches = -(-self._waiting_items // self.max_batch_size)
        return max(1.0, batches * (self._batch_s or 0.0))

    def cancel(self, request: int) -> bool:
        """Forget a request: what waits leaves the queue, what runs is dropped when it returns. False: not known."""
        entry = self._live.pop(request, None)
        if entry is None:
            return False
        if self._waiting.pop(request, None) is not None:
            self._waiting_items -= entry.count - entry.sent
        return True

    def wake_at(self) -> float | None:
        """When `take` may have something for a free device, or something to expire; None: not before an `add`."""
        self._drop_stale_deadlines()
        times = [self._ripe_at()] if self._waiting else []
        if self._deadlines:
            times.append(self._deadlines[0][0])
        return min(times, default=None)

    def take(self, now: float) -> Taken:
        """The batch for a device that is free now, after forgetting everything whose deadline is not after `now`."""
        expired = self._expire(now)
        if not self._waiting or now < self._ripe_at():
            return Taken(None, expired)
        parts: list[Part] = []
        room = self.max_batch_size
        while room and self._waiting:
            request, entry = next(iter(self._waiting.items()))
            size = min(room, entry.count - entry.sent)
            parts.append(Part(request, entry.sent, entry.sent + size))
            entry.sent += size
            room -= size
            self._waiting_items -= size
            if entry.sent == entry.count:
                del self._waiting[request]
        self._batches += 1
        return Taken(Batch(self._batches, tuple(parts), now), expired)

    def finish(self, batch: Batch, outcomes: Sequence[T | Refusal], now: float) -> list[Finished[T]]:
        """Take back a batch with one outcome per part; answers the requests that are over now.

        A request with a refused part is over at once and its other parts are forgotten. Parts of requests that were
        cancelled or have expired meanwhile are dropped. Raises ValueError where outcomes and parts differ in number.
        """
        if len(outcomes) != len(batch.parts):
            raise ValueError(f"{len(outcomes)} outcomes for a batch of {len(batch.parts)} parts")
        took = max(0.0, now - batch.formed_at)
        self._batch_s = took if self._batch_s is None else self._batch_s + _MEMORY * (took - self._batch_s)
        finished: list[Finished[T]] = []
        for part, outcome in zip(batch.parts, outcomes, strict=True):
            entry = self._live.get(part.request)
            if entry is None:
                continue
            if isinstance(outcome, Refusal):
                self.cancel(part.request)
                finished.append(Finished(part.request, outcome))
                continue
            entry.results[part.start] = outcome
            entry.returned += part.size
            if entry.returned == entry.count:
                del self._live[part.request]
                finished.append(
                    Finished(part.request, [entry.results[start] for start in sorted(entry.results)])
                )
        return finished

    def _expire(self, now: float) -> tuple[int, ...]:
        """Forget the waiting requests whose deadline has come. What runs already is the caller's to time."""
        expired: list[int] = []
        while self._deadlines and self._deadlines[0][0] <= now:
            _, request = heapq.heappop(self._deadlines)
            if request in self._waiting:
                self.cancel(request)
                expired.append(request)
        return tuple(expired)

    def _ripe_at(self) -> float:
        """When the oldest waiting item has waited long enough, or the beginning of time if a batch is full."""
        if self._waiting_items >= self.max_batch_size or not self.max_queue_delay_s:
            return float("-inf")
        return next(iter(self._waiting.values())).arrived + self.max_queue_delay_s

    def _head_is_cut(self) -> bool:
        return bool(self._waiting) and next(iter(self._waiting.values())).sent > 0

    def _drop_stale_deadlines(self) -> None:
        while self._deadlines and self._deadlines[0][1] not in self._waiting:
            heapq.heappop(self._deadlines)
