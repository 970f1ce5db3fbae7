"""The nouns of the batcher: a batch and its parts, what was decided about one, what came of a request.

A request is named by whatever its owner likes to have back, an object of its own or a number.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeAlias, TypeVar

from fleet_wire.refusal import Refusal

R = TypeVar("R", bound=Hashable)
T = TypeVar("T")

# These are made for every request, or nearly; a frozen dataclass would take a microsecond each.


@dataclass(slots=True)
class Part(Generic[R]):
    """Items start..stop of the request `request`."""

    request: R
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


@dataclass(slots=True)
class Entry(Part[R]):
    """A request in the queue, and the part of it that is all of it: `sent` and `returned` of its `stop` items,
    `results` by the first item's number once it is cut."""

    arrived: float
    deadline: float | None
    priority: int
    group: Hashable = None
    sent: int = 0
    results: dict[int, Any] | None = None
    returned: int = 0

    @property
    def count(self) -> int:
        return self.stop


@dataclass(slots=True)
class Batch(Generic[R]):
    """What the device computes in one go. Its parts are in the order in which the requests were chosen."""

    id: int
    parts: tuple[Part[R], ...]
    formed_at: float
    size: int

    @property
    def single(self) -> bool:
        """Each part is one item."""
        return self.size == len(self.parts)


# A request that is over: the results of its parts in order, or why there are none.
Finished: TypeAlias = tuple[R, list[T] | Refusal]


@dataclass(frozen=True, slots=True)
class Taken(Generic[R]):
    """What `take` decided: the batch to run now, if any, and the requests that can't make their deadline any more."""

    batch: Batch[R] | None
    expired: tuple[R, ...] = ()
