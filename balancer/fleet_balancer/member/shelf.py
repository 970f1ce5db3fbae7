"""Members that may serve the same requests, in the order in which they are picked. PURE.

Equal scores share a bucket, first come first out, and a small heap holds the scores that occur. A pick and a change
are a few dictionary steps: they cost the same with 100 members and with 10,000, and nothing is ever sorted again.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

Host = TypeVar("Host")


@dataclass(frozen=True, slots=True)
class Kind:
    """What members of one shelf have in common: whether they stand in the balancer's zone, which models and versions
    are ready there (empty: any), and which models are known to find too little device memory there."""

    local: bool = True
    models: tuple[tuple[str, str], ...] = ()
    lacking: frozenset[str] = frozenset()

    def serves(self, model: str | None, version: str | None) -> bool:
        """Whether a request for `model` may go here. A version is only asked for together with a model."""
        if model is None:
            return True
        if model in self.lacking:
            return False
        if not self.models:
            return True
        return any(name == model and version in (None, ready) for name, ready in self.models)


class Shelf(Generic[Host]):
    """Members of one `kind`. `count` includes those that are full and therefore in no bucket.

    `load` and `weight` are those of all its members, where the policy keeps them.
    """

    __slots__ = ("buckets", "count", "draw", "kind", "load", "scores", "weight")

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.count = 0
        self.load = 0
        self.weight = 0.0
        self.scores: list[float] = []
        self.buckets: dict[float, OrderedDict[Host, None]] = {}
        # For policies that draw at random: the members that have room, each knows its place.
        self.draw: list[Host] = []

    def open(self, score: float) -> OrderedDict[Host, None]:
        """A bucket for a score that does not occur yet."""
        if len(self.scores) > 64 + 2 * self.count:
            self._compact()
        bucket: OrderedDict[Host, None] = OrderedDict()
        self.buckets[score] = bucket
        heappush(self.scores, score)
        return bucket

    def first(self) -> Host | None:
        """The member with the lowest score that got it longest ago; None: nobody has room."""
        scores = self.scores
        while scores:
            for member in self.buckets[scores[0]]:
                return member
            del self.buckets[heappop(scores)]
        return None

    def _compact(self) -> None:
        self.buckets = {score: bucket for score, bucket in self.buckets.items() if bucket}
        self.scores[:] = self.buckets
        heapify(self.scores)

    def __repr__(self) -> str:
        return f"<Shelf {self.kind} of {self.count}>"
