"""A model on its device, and how a batch goes through it: preprocess, forward, postprocess."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch

from fleet_agent.model.batch import Inputs
from fleet_agent.model.compute import Prepared
from fleet_agent.model.faults import INPUT_ERRORS, InputFault, ModelFault, is_out_of_memory, said
from fleet_agent.model.generator import Generator, can_generate
from fleet_agent.model.rows import rows_of
from fleet_agent.values.lengths import checked_buckets
from fleet_agent.values.payload import Payload, Rows, count_of, instances_of, is_finite
from fleet_agent.values.tensors import TensorMetadata, checked_metadata
from fleet_wire.agent import ModelConfig


@dataclass(frozen=True, slots=True)
class Result:
    """`rows`: one per instance. `finite`: none of its numbers is NaN or infinite."""

    rows: Rows
    finite: bool


class LoadedModel:
    """A model of the user's, on its device. Raises ModelFault where it can't do what the configuration asks."""

    def __init__(self, config: ModelConfig, instance: Any, device: torch.device) -> None:
        self.config = config
        self.instance = instance
        self.device = device
        where = f"model {config.name}: {config.entrypoint or config.format}"
        try:
            self.inputs = _metadata(instance, "inputs", where)
            self.outputs = _metadata(instance, "outputs", where)
            buckets = config.length_buckets
            if buckets is None:
                buckets = getattr(instance, "length_buckets", None)
            self.length_buckets = checked_buckets(buckets, f"{where}.length_buckets")
        except ValueError as error:
            raise ModelFault(str(error)) from None
        self.out_of_memory: int | None = None  # the smallest batch that the warm-up found too large
        self.embeddings = bool(getattr(instance, "embeddings", False))
        self._inputs = Inputs(self.inputs, device, config.compute.pinned_memory)
        self._forward = Prepared(config, instance, device)
        self.predicts = has_forward(instance)
        self.generator = Generator(config, instance, device) if can_generate(instance) else None

    def run(self, payload: Payload) -> Result:
        """One batch. Raises InputFault, ModelFault, or whatever the model's `forward` raises."""
        count = count_of(payload)
        with torch.inference_mode():
            batch = self._preprocess(payload)
            try:
                outputs = self._forward(batch)
            except ValueError as error:
                raise InputFault(str(error)) from error
            own = getattr(self.instance, "postprocess", None)
            rows = rows_of(outputs if own is None else own(outputs), f"model {self.config.name}")
        given = count_of(rows)
        if given != count:
            raise ModelFault(f"model {self.config.name} returned {given} outputs for {count} instances")
        return Result(rows, is_finite(rows))

    def tokens(self, payload: Payload) -> int | None:
        """How many tokens the instances are, by the model's own `count_tokens`; None where it has none."""
        counter = getattr(self.instance, "count_tokens", None)
        return None if counter is None else int(sum(counter(instances_of(payload))))

    def warm_up(self) -> float | None:
        """Run what the model's `warmup` gives, alone and as a full batch, or as large a one as the device's memory
        holds; answers how many seconds the shorter of the two took, None where there was nothing to run.

        Of a model that generates, what has "messages" is taken for a chat request, and all of it where it has no
        `forward`.
        """
        maker = getattr(self.instance, "warmup", None)
        if maker is None:
            return None
        instances = list(maker())
        if self.generator is not None:
            requests = [each for each in instances if not self.predicts or _is_chat(each)]
            instances = [each for each in instances if self.predicts and not _is_chat(each)]
            if requests:
                self.generator.warm_up(requests, self.config.max_batch_size)
        if not instances:
            return None
        alone = self.timed(instances[:1])
        size = self.config.max_batch_size
        while size > 1:
            full = (instances * math.ceil(size / len(instances)))[:size]
            try:
                return min(alone, self.timed(full))
            except Exception as error:  # The user's code may raise anything.
                if not is_out_of_memory(error):
                    raise
            # Outside of the except block, whose exception keeps the tensors of the failed run alive.
            self.out_of_memory = size
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            size //= 2
        return alone

    def timed(self, instances: list[Any]) -> float:
        """Seconds of one batch. `run` gives rows in the memory of the host, so the device has finished by then."""
        started = time.perf_counter()
        self.run(instances)
        return time.perf_counter() - started

    def memory_bytes(self) -> int | None:
        """What the declaration says; the caller measures where there is a device to ask."""
        return self.config.device_memory_bytes

    def _preprocess(self, payload: Payload) -> Any:
        own = getattr(self.instance, "preprocess", None)
        if own is None:
            return self._inputs.batch(payload)
        instances = instances_of(payload)
        try:
            return own(instances)
        except INPUT_ERRORS as error:
            raise _blamed(instances, own, error) from error


def has_forward(instance: Any) -> bool:
    """Whether it computes batches; a module that only generates has torch's own `forward`, which raises."""
    own = getattr(type(instance), "forward", None)
    return callable(getattr(instance, "forward", None)) and own is not torch.nn.Module.forward


def _is_chat(instance: Any) -> bool:
    return isinstance(instance, dict) and "messages" in instance


def _blamed(instances: list[Any], own: Any, error: Exception) -> InputFault:
    """The instance that `preprocess` doesn't take alone either; without one, the error as it is."""
    for index, instance in enumerate(instances):
        try:
            own([instance])
        except INPUT_ERRORS as alone:
            return InputFault(f"instance {index}: {said(alone)}")
    return InputFault(said(error))


def _metadata(instance: Any, attribute: str, where: str) -> list[TensorMetadata]:
    value = getattr(instance, attribute, None)
    return [] if value is None else checked_metadata(value, f"{where}.{attribute}")
