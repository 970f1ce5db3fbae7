"""What a batch costs by its size, timed before the first request: the beginning of the model's service curve.

Sizes 1, 2, 4 ... and the largest one, each run twice, of which the faster counts (the first one may still build
something for its shape). The instances are those that the model's `warmup` gives; without it nothing is timed. It stops
before the time is up, so a slow model is timed at few sizes, or none.
"""

from __future__ import annotations

import math
import time

from fleet_agent.model.loaded import LoadedModel

BOUND_S = 1.5
_RUNS = 2


def seeds(model: LoadedModel, warm_s: float | None, bound_s: float = BOUND_S) -> list[tuple[int, float]]:
    """(items, seconds), in order of size. After the model's warm-up, which said `warm_s`."""
    maker = getattr(model.instance, "warmup", None)
    instances = list(maker()) if maker is not None and model.predicts else []
    if not instances or warm_s is None:
        return []
    started = time.perf_counter()
    points: list[tuple[int, float]] = []
    for size in _sizes(model.config.max_batch_size):
        # In proportion to the size before: more than that it hardly takes.
        expected = points[-1][1] * size / points[-1][0] * _RUNS if points else warm_s * _RUNS
        if time.perf_counter() - started + expected > bound_s:
            break
        batch = (instances * math.ceil(size / len(instances)))[:size]
        try:
            points.append((size, min(model.timed(batch) for _ in range(_RUNS))))
        except (
            Exception
        ):  # The user's code may raise anything, and a larger batch may not fit: what is known will do.
            break
    return points


def _sizes(most: int) -> list[int]:
    doubling = [2**n for n in range(most.bit_length()) if 2**n < most]
    return [*doubling, most]
