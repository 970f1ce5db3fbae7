"""Which engine runs the kernel: numba and numpy where they are installed and the trace is long enough, else Python.

Both run the same lines. Compiling takes some seconds, once: numba keeps the result on disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import Any

from fleet_controller.simulate import kernel
from fleet_controller.simulate.trace import Trace

try:
    import numba
    import numpy as np
except ImportError:  # the `simulate` extra is not installed
    numba = None

COMPILES = numba is not None
WORTH_COMPILING = 300_000  # requests


class PlainEngine:
    """The kernel as it stands, over lists."""

    name = "python"

    def __init__(self, seed: int) -> None:
        self._chance = Random(seed)

    def zeros(self, count: int, whole: bool = False) -> Any:
        return [0] * count if whole else [0.0] * count

    def arrivals(self, trace: Trace) -> Sequence[float]:
        return list(trace.arrivals(self._chance))

    def draws(self, count: int) -> Sequence[float]:
        return [self._chance.expovariate(1.0) for _ in range(count)]

    def advance(self, *arguments: Any) -> int:
        return kernel.advance(*arguments)


class CompiledEngine:
    """The kernel compiled by numba, over numpy's arrays."""

    name = "numba"

    def __init__(self, seed: int) -> None:
        self._chance = np.random.default_rng(seed)
        self._advance = _compiled()

    def zeros(self, count: int, whole: bool = False) -> Any:
        return np.zeros(count, dtype=np.int64 if whole else np.float64)

    def arrivals(self, trace: Trace) -> Any:
        starts = np.array([start for start, _ in trace.rows])
        counts = np.array([count for _, count in trace.rows])
        times = np.repeat(starts, counts) + trace.interval_s * self._chance.random(int(counts.sum()))
        times.sort()
        return times

    def draws(self, count: int) -> Any:
        return self._chance.exponential(1.0, count)

    def advance(self, *arguments: Any) -> int:
        return self._advance(*arguments)


def engine(requests: int, seed: int, compiled: bool | None = None) -> PlainEngine | CompiledEngine:
    """The faster one for a trace of so many requests. `compiled` insists on one; ImportError where it can't be had."""
    if compiled and numba is None:
        raise ImportError("numba is not installed; pip install 'fleetctl[simulate]'")
    if compiled is None:
        compiled = numba is not None and requests >= WORTH_COMPILING
    return CompiledEngine(seed) if compiled else PlainEngine(seed)


@cache
def _compiled() -> Callable[..., int]:
    compiled: Callable[..., int] = numba.njit(cache=True, nogil=True)(kernel.advance)
    return compiled
