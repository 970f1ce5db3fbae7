"""What is counted about the requests of a version."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from fleet_agent.generate.figures import Figures
from fleet_agent.queue.waits import Waits
from fleet_wire.histogram import LatencyHistogram
from fleet_wire.refusal import Refusal


@dataclass(slots=True)
class Counters:
    """Since the start. `completed` were answered; `errors` failed by our fault or too late (500, 503, 504)."""

    completed: int = 0
    errors: int = 0
    bad: int = 0  # 400 by the model or its preprocess
    overloaded: int = 0
    hopeless: int = 0  # refused at once: the queue needs longer than the request has
    expired: int = 0  # counted in errors too
    abandoned: int = 0  # the client went away
    batches: int = 0
    items: int = 0
    latency: LatencyHistogram = field(default_factory=LatencyHistogram)
    inference: LatencyHistogram = field(default_factory=LatencyHistogram)  # of batches
    queue_wait: Waits = field(default_factory=Waits)  # until the first item is on its way
    sizes: dict[int, int] = field(default_factory=dict)  # batches by how many items were in them
    generated: Figures = field(default_factory=Figures)
    used_length: int = 0  # of instances of models with length buckets
    padding_length: int = 0  # what was added to them, to be as long as the longest in their batch
    unwanted: int = 0  # items computed for requests that were abandoned or had expired

    def merge(self, other: Counters) -> None:
        """Count the other's too."""
        for each in fields(self):
            ours, theirs = getattr(self, each.name), getattr(other, each.name)
            if isinstance(ours, int):
                setattr(self, each.name, ours + theirs)
            elif isinstance(ours, dict):
                for size, batches in theirs.items():
                    ours[size] = ours.get(size, 0) + batches
            else:
                ours.merge(theirs)

    def sent(self, size: int, waits_s: list[float]) -> None:
        """Counts a batch of so many items, and how long the requests that begin in it have waited."""
        self.batches += 1
        self.items += size
        self.sizes[size] = self.sizes.get(size, 0) + 1
        self.queue_wait.add(waits_s)

    def turned_away(self, refusal: Refusal) -> None:
        """Counts a request that the queue didn't take."""
        if refusal.code == "overloaded":
            self.overloaded += 1
        elif refusal.code == "unavailable":
            self.hopeless += 1
        else:
            self.expired += 1
            self.errors += 1
