"""Memory that the front and one worker share, so that a tensor crosses between them without going through a socket.

The front stacks the rows of a batch in the first half, the worker puts the outputs into the second; what was put there
is named in the small message beside it (see `Placed`). A batch that is alone has both halves, from the message that
names it until its outcome is read; where several are on their way, each has a lane of them. The region is large and
sparse: a page costs memory from its first use on. What doesn't fit, and what is no tensor, travels in the message.
"""

from __future__ import annotations

import mmap
import os
import tempfile
from collections.abc import Sequence
from math import prod

import numpy as np

from fleet_agent.values.packed import Data, Layout
from fleet_agent.values.tensors import Array

HALF = 256 * 1024 * 1024
LANES = 4
_LANE = HALF // LANES
_ALIGN = 64

# Where an array lies: offset in the half, numpy's name of its type, its shape.
Placed = tuple[int, str, tuple[int, ...]]


class Area:
    """One process's view of the shared region. `writes` and `reads` are the halves as this side uses them."""

    def __init__(self, fd: int, front: bool) -> None:
        """Maps the region behind `fd`, which stays the caller's to close. Raises OSError."""
        self._map = mmap.mmap(fd, 2 * HALF)
        view = memoryview(self._map)
        halves = (view[:HALF], view[HALF:])
        self._writes, self._reads = halves if front else halves[::-1]
        self._used = 0
        self._end = HALF

    def enter(self, lane: int | None) -> None:
        """What is put from now on lies in that lane (None: in the whole half); what was there is no longer needed."""
        self._used = 0 if lane is None else lane * _LANE
        self._end = HALF if lane is None else self._used + _LANE

    def put(self, parts: Sequence[Array]) -> tuple[Placed, Array] | None:
        """The parts (same type, same row shape) one below the other: where, and the array there; None: no room."""
        first = parts[0]
        rows = sum(len(part) for part in parts)
        shape = (rows, *first.shape[1:])
        size = prod(shape) * first.dtype.itemsize
        start = -(-self._used // _ALIGN) * _ALIGN
        if first.dtype.kind not in "biuf" or not 0 < size <= self._end - start:
            return None
        self._used = start + size
        stacked = np.frombuffer(self._writes, first.dtype, prod(shape), start).reshape(shape)
        if len(parts) == 1:
            stacked[...] = first
        else:
            np.concatenate(parts, out=stacked)
        return (start, first.dtype.str, shape), stacked

    def pack(self, layout: Layout, parts: Sequence[Data]) -> Placed | None:
        """Instances as bytes, one after the other: where; None: no room."""
        together = b"".join(parts)
        start = -(-self._used // _ALIGN) * _ALIGN
        stop = start + len(together)
        if layout.dtype.kind not in "biuf" or not start < stop <= self._end:
            return None
        self._used = stop
        self._writes[start:stop] = together
        return start, layout.dtype.str, (len(together) // layout.width, *layout.shape)

    def get(self, placed: Placed) -> Array:
        """The array that the other side put there, without a copy. Raises ValueError for a place that is none."""
        start, dtype, shape = placed
        kind = np.dtype(dtype)
        if kind.kind not in "biuf" or start < 0 or not all(size > 0 for size in shape):
            raise ValueError(f"{placed!r} is no place in the shared area")
        return np.frombuffer(self._reads, kind, prod(shape), start).reshape(shape)


def open_area() -> int:
    """A new region's file descriptor, for both sides to map. Raises OSError."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("fleet-agent", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    try:
        os.truncate(fd, 2 * HALF)
    except OSError:
        os.close(fd)
        raise
    return fd
