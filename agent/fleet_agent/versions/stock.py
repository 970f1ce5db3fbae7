"""Every version that is here, as `/status` and `/admin/models` say it."""

from __future__ import annotations

from collections.abc import Iterable

from fleet_agent.served.served import ServedModel
from fleet_wire.agent import ModelState, ModelStatus
from fleet_wire.capacity import ModelLoad


def model_status(model: ServedModel, ready: bool) -> ModelStatus:
    """`ready`: it takes requests now."""
    return ModelStatus(
        name=model.config.name,
        version=model.config.version,
        ready=ready,
        state=_state(model, ready),
        error=model.error,
        queued=model.batcher.queued + model.generation.queued,
        in_flight=model.batcher.in_flight + model.generation.in_flight,
        max_batch_size=model.cap.size,
        device_memory_bytes=None if model.traits is None else model.traits.memory_bytes,
        items=model.counters.items,
        completed=model.counters.completed,
        service_curve=model.curve.points() or model.generation.points(),
    )


def loads_of(models: Iterable[ServedModel]) -> list[ModelLoad]:
    """What they cost and were asked so far, for the estimate of a capacity."""
    return [
        ModelLoad(
            name=model.config.name,
            completed=model.counters.completed,
            items=model.counters.items,
            max_batch=model.cap.size,
            curve=tuple(model.curve.points() or model.generation.points()),
        )
        for model in models
    ]


def _state(model: ServedModel, ready: bool) -> ModelState:
    if model.error is not None:
        return "failed"
    if model.stage in ("leaving", "gone"):
        return "unloading"
    return "ready" if ready else "loading"
