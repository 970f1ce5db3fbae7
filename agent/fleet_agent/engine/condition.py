"""How the whole is, as it is told: whether it takes requests, why not, how busy it is, what its devices hold."""

from __future__ import annotations

import time
from collections.abc import Callable

from fleet_agent.crew import vitals
from fleet_agent.crew.crew import Crew
from fleet_agent.outside.engines import OutsideEngines
from fleet_agent.queue.capacity import Capacity
from fleet_agent.served.served import ServedModel
from fleet_agent.versions.stock import loads_of, model_status
from fleet_agent.versions.versions import Versions
from fleet_wire.agent import AgentConfig, AgentState, DeviceMemory, ModelStatus


class Condition:
    """Everything here is worked out when it is asked for."""

    def __init__(
        self,
        config: AgentConfig,
        versions: Versions[ServedModel],
        crew: Crew,
        outside: OutsideEngines,
        draining: Callable[[], bool],
    ) -> None:
        self._config = config
        self._versions = versions
        self._crew = crew
        self._outside = outside
        self._draining = draining
        self._capacity = Capacity(config.latency_target_ms, config.latency_percentile)

    def state(self) -> AgentState:
        if self._draining():
            return "draining"
        if (
            any(model.error is not None for model in self._versions.current.values())
            or self._crew.device_fault() is not None
            or any(engine.failed for engine in self._outside.values())
        ):
            return "failed"
        own = all(slot.takes for slot in self._crew.slots)
        return "ready" if own and self._outside.reason() is None else "loading"

    def reason(self) -> str | None:
        """Why the agent isn't ready, or None."""
        if self._draining():
            return "draining"
        errors = [model.error for model in self._versions.current.values() if model.error is not None]
        if errors:
            return "; ".join(errors)
        waiting = [slot for slot in self._crew.slots if not slot.takes]
        if not waiting:
            return self._outside.reason()
        slot = waiting[0]
        if slot.error is not None:
            return slot.error
        return (
            f"loading model {slot.loading.config.name}"
            if slot.loading
            else f"starting the worker of {slot.device}"
        )

    def ready(self, model: ServedModel | None) -> bool:
        """Whether it takes requests now."""
        return (
            not self._draining()
            and model is not None
            and model.stage in ("answering", "kept")
            and any(slot.serves(model) for slot in self._crew.slots)
        )

    def model_ready(self, name: str) -> bool:
        return self.ready(self._versions.current.get(name))

    def beside(self) -> list[ModelStatus]:
        """The versions that don't answer to their names."""
        return [self.status_of(model) for model in self._versions.everyone if model.stage != "answering"]

    def status_of(self, model: ServedModel) -> ModelStatus:
        return model_status(model, self.ready(model))

    def busy_s(self) -> float:
        """How long the devices ran batches since the start, the mean over devices."""
        now = time.monotonic()
        own = sum(slot.busy(now) for slot in self._crew.slots) / max(1, len(self._crew.slots))
        return own + self._outside.busy_s()

    def device_memory(self) -> DeviceMemory:
        """Of all devices together."""
        loaded = [m.config for m in self._versions.everyone if m.traits is not None] + self._outside.loaded()
        return vitals.device_memory(self._crew.slots, loaded, self._config.device_memory_total_bytes)

    def memory(self) -> dict[str, DeviceMemory]:
        """Of each device that can be asked; else what is declared, out of what may be used."""
        bound = self._config.device_memory_total_bytes
        if any(slot.watch for slot in self._crew.slots):
            return {slot.device: slot.device_memory(bound) for slot in self._crew.slots}
        return {"the device": self.device_memory()}

    def capacity_rps(self) -> float | None:
        """Requests/s within the configured latency target, by the learned curves; None without either."""
        return self._capacity.rps(lambda: loads_of(self._versions.current.values()), time.monotonic())

    @property
    def load_s(self) -> float | None:
        """How long it took until everything was loaded, None until then."""
        return self._outside.load_s(self._crew.load_s)
