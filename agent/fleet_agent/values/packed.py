"""Instances as the bytes that they came in, for a model whose one input has a fixed shape: most calls bring nothing
else. No array is made of each request: a batch is their bytes, one after the other. PURE.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from fleet_agent.values.tensors import Array

Data: TypeAlias = "bytes | memoryview"


@dataclass(frozen=True, slots=True)
class Layout:
    """How an instance lies in memory: row-major, little-endian. `shape` without the batch, `width` in bytes."""

    name: str
    datatype: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    width: int


class Packed:
    """`count` instances, `data` their bytes one after the other."""

    __slots__ = ("count", "data", "layout")

    def __init__(self, layout: Layout, data: Data, count: int) -> None:
        self.layout = layout
        self.data = data
        self.count = count

    def __repr__(self) -> str:
        return f"<Packed {self.count} x {self.layout.name} {self.layout.datatype}{list(self.layout.shape)}>"

    def arrays(self) -> dict[str, Array]:
        """The same as an array, shape (count, *layout.shape), without a copy."""
        layout = self.layout
        return {layout.name: np.frombuffer(self.data, layout.dtype).reshape(self.count, *layout.shape)}

    def cut(self, start: int, stop: int) -> Packed:
        """Instances start..stop, without a copy."""
        width = self.layout.width
        data = memoryview(self.data).cast("B")[start * width : stop * width]
        return Packed(self.layout, data, stop - start)
