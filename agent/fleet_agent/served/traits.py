"""What a model turned out to be when a worker loaded it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod

from fleet_agent.values.packed import Layout
from fleet_agent.values.tensors import DTYPES, TensorMetadata


@dataclass(frozen=True, slots=True)
class Traits:
    """What a worker found out about a model by loading it. `tensors`: it has no `preprocess` of its own.

    `predicts`: it computes batches. `max_tokens`: the most that an answer of a generator may have; None: it is none.
    `counts_prompt`: it says how many tokens a prompt has.
    `length_buckets`: see lengths.py; `varies`: instances may differ in shape, and not all can share a batch.
    `vector`: name and width (-1: any) of its one input, where that is a vector of FP32 numbers an instance.
    `layout`: of an instance, where its one input has a fixed shape.
    """

    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    embeddings: bool
    tensors: bool
    memory_bytes: int | None
    predicts: bool = True
    max_tokens: int | None = None
    counts_prompt: bool = False
    length_buckets: list[int] | None = None
    varies: bool = field(init=False, default=False)
    vector: tuple[str, int] | None = field(init=False, default=None)
    layout: Layout | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        open_ended = not self.inputs or any(-1 in tensor["shape"][1:] for tensor in self.inputs)
        object.__setattr__(self, "varies", self.length_buckets is not None or (self.tensors and open_ended))
        if len(self.inputs) != 1:
            return
        only = self.inputs[0]
        row = tuple(only["shape"][1:])
        if only["datatype"] in DTYPES and -1 not in row:
            dtype = DTYPES[only["datatype"]]
            width = prod(row) * dtype.itemsize
            layout = Layout(only["name"], only["datatype"], dtype, row, width)
            object.__setattr__(self, "layout", layout if width else None)
        if self.tensors and only["datatype"] in ("FP32", "BF16") and len(only["shape"]) == 2:
            object.__setattr__(self, "vector", (only["name"], only["shape"][1]))
