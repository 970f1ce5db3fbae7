"""`/status`: the whole of what an agent says about itself."""

from __future__ import annotations

import os
import time

from fleet_agent.crew import vitals
from fleet_agent.engine.engine import Engine
from fleet_wire.agent import AgentStatus
from fleet_wire.histogram import merged


def agent_status(engine: Engine) -> AgentStatus:
    config, outside = engine.config, engine.outside
    models = [engine.condition.status_of(model) for model in engine.models.values()]
    models += [other.status(not engine.draining) for other in outside.values()]
    failed = [engine.condition.status_of(model) for model in engine.repository.failed.values()]
    beside = [*engine.condition.beside(), *failed]
    # Of versions that have left too: counters never go back.
    counters = list(engine.ledger.counters.values())
    counters += [other.counters for other in outside.values()]
    state = engine.condition.state()
    return AgentStatus(
        fleet=config.fleet,
        host=config.host,
        action_id=config.action_id,
        release=config.release,
        pid=os.getpid(),
        started_at=engine.started_at,
        at=time.time(),
        state=state,
        error=engine.condition.reason() if state in ("failed", "loading") else None,
        models=models,
        beside=beside,
        in_flight=sum(model.in_flight for model in (*models, *beside)),
        queued=sum(model.queued for model in (*models, *beside)),
        completed=sum(c.completed for c in counters),
        errors=sum(c.errors for c in counters),
        busy_s=engine.condition.busy_s(),
        load_s=engine.condition.load_s,
        latency=merged(c.latency for c in counters).to_wire(),
        device=",".join(slot.device for slot in engine.slots) or outside.device,
        device_memory=engine.condition.device_memory(),
        devices=vitals.devices(engine.slots, config.device_memory_total_bytes, time.monotonic()),
        capacity_rps=engine.condition.capacity_rps(),
        recycles=vitals.recycles(engine.slots),
    )
