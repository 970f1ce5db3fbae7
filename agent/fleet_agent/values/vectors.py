"""JSON numbers straight into an array, without a Python object for each of them.

For the most frequent call of all, `{"instances": [[numbers], ...]}` to a model whose one input is a vector: simdjson
reads the numbers into memory that numpy takes over, at a third of the time of a JSON library that makes a list of
floats and numpy reading that list. What isn't exactly of this form is left to the general way, which says what is
wrong with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import simdjson

from fleet_agent.values.tensors import Array

_LARGEST = float(np.finfo(np.float32).max)
# What simdjson raises for bodies that it doesn't take, or that hold something else: left to the general way.
_OTHERWISE = (ValueError, TypeError, KeyError, IndexError, AttributeError, RuntimeError)


class VectorReader:
    """Reads bodies one after the other; its parser's memory is used again for each."""

    def __init__(self) -> None:
        self._parser = simdjson.Parser()

    def rows(self, body: bytes, width: int) -> Array | None:
        """FP32, shape (instances, width); `width` -1: as wide as the first. None: not of this form, or huge."""
        # simdjson's proxies lie in the parser's memory and have to be gone before the next body: they live here only.
        try:
            instances: Any = self._parser.parse(body)["instances"]  # type: ignore[index]
            count = len(instances)
            if width < 0:
                width = len(instances[0])
            # A bracket more than these is something nested deeper, which as_buffer would flatten.
            if body.count(b"[") != count + 1 or [len(instance) for instance in instances] != [width] * count:
                return None
            numbers = np.frombuffer(instances.as_buffer(of_type="d"), np.float64)
        except _OTHERWISE:
            return None
        # Where the squares' sum is below the square of float32's largest number, so is each of them.
        if not numbers.dot(numbers) < _LARGEST**2:
            return None
        return numbers.astype(np.float32).reshape(count, width) if numbers.size else None
