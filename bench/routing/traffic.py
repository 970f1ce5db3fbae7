"""The requests of the mixed fleet, the same in the simulation and in the real run: when, for which model, how large."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

GIB = 1 << 30
SPEEDS = (1, 1, 1, 2, 2, 2, 4, 4, 4)
SHORT = 8  # this host has little memory
TOTAL, NEED = 16 * GIB, 3 * GIB
NEEDY = ("large-a", "large-b")
MEAN_S = 0.02
SHAPE, SPREAD = 1.3, 200.0
WARM_S = 5.0  # what comes before is served and not measured: the pool meets its hosts for the first time


@dataclass(frozen=True)
class Request:
    """Seconds: `at` after the beginning, `size` of work on a host of speed 1."""

    at: float
    model: str
    size: float


def used_at_first(host: int) -> int:
    """Bytes of its memory that a host has in use before any large model."""
    return TOTAL - (4 if host == SHORT else 8) * GIB


def requests(load: float, seconds: float, seed: int) -> Iterator[Request]:
    """A Poisson stream at `load` (share of the fleet's capacity)."""
    rng = random.Random(seed)
    rate = load * sum(SPEEDS) / MEAN_S
    mean = mean_size()
    at = rng.expovariate(rate)
    while at < seconds:
        draw = rng.random()
        model = "large-a" if draw < 0.1 else "large-b" if draw < 0.2 else "small"
        yield Request(at, model, size(rng) / mean * MEAN_S)
        at += rng.expovariate(rate)


def size(rng: random.Random) -> float:
    """Bounded Pareto from 1 to SPREAD."""
    top = 1.0 - SPREAD**-SHAPE
    return float((1.0 - rng.random() * top) ** (-1.0 / SHAPE))


def mean_size() -> float:
    top = 1.0 - SPREAD**-SHAPE
    return float(SHAPE / (SHAPE - 1.0) * (1.0 - SPREAD ** (1.0 - SHAPE)) / top)
