"""The picture of the fleet that `fleetctl status` shows (DESIGN 5.1), drawn from one tick. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fleet_controller.explain import diagnosis
from fleet_controller.latencies import HostLatencies
from fleet_controller.lifecycle import HostState
from fleet_controller.observe import Observation
from fleet_controller.plan.placement import elsewhere, held, serves
from fleet_controller.policies import Decision, PolicyState, cooldown_remaining_s
from fleet_controller.policies.schedule import bounds
from fleet_controller.powerwatch import Seen, drift
from fleet_controller.records import HostRecord, PoolRecord
from fleet_controller.spec import FleetSpec, PoolSpec
from fleet_controller.tick import PoolTick

SCHEMA = "fleetctl/status/v1"


@dataclass(frozen=True)
class Picture:
    """Everything the status is drawn from."""

    spec: FleetSpec
    goal: str
    endpoint: str
    records: Mapping[str, HostRecord]
    pools: Mapping[str, PoolTick]
    observation: Observation | None
    latencies: HostLatencies
    power: Mapping[str, Seen] = field(default_factory=dict)
    waiting: Mapping[str, str] = field(default_factory=dict)
    operation: Mapping[str, Any] | None = None

    def draw(self, now: float) -> dict[str, Any]:
        """The status as JSON."""
        down = None if self.observation is None else self.observation.balancer_error
        in_flight = {} if self.observation is None else self.observation.in_flight()
        return {
            "schema": SCHEMA,
            "fleet": self.spec.fleet,
            "goal": self.goal,
            "at": now,
            "endpoint": self.endpoint,
            "controller": {
                "running": True,
                "leader": True,
                "last_tick_age_s": 0.0,
                "paused": bool(self.pools) and all(p.record.paused for p in self.pools.values()),
            },
            "balancer": {
                "running": self.observation is not None and self.observation.balancer is not None,
                "error": down,
            },
            "operation": None if self.operation is None else dict(self.operation),
            "pools": [self._pool(pool, now) for pool in self.spec.pools],
            "hosts": [
                self._host(name, pool, in_flight.get(name, 0), now)
                for pool in self.spec.pools
                for name in pool.hosts
                if name not in self.spec.shared or self._serves(name) is pool
            ],
        }

    def _serves(self, name: str) -> PoolSpec | None:
        return serves(self.spec, self.records.get(name) or HostRecord(name))

    def _pool(self, pool: PoolSpec, now: float) -> dict[str, Any]:
        tick = self.pools.get(pool.name) or PoolTick(PoolRecord(pool.name), None, {}, frozenset())
        traffic = self._traffic(pool.name)
        ready = [
            n
            for n in held(self.spec, pool, self.records).hosts
            if n in self.records and self.records[n].state is HostState.READY and n not in tick.roomless
        ]
        away = elsewhere(self.spec, pool, self.records)
        return {
            "name": pool.name,
            "tier": pool.tier,
            "desired": tick.record.desired,
            "ready": len(ready),
            "min_servers": pool.scaling.min_servers,
            "max_servers": pool.scaling.max_servers,
            "latency_ms": {key: tick.latency_ms.get(key) for key in ("p50", "p95", "p99")},
            "rps": tick.signal.rps if tick.signal else None,
            "utilization": tick.signal.utilization if tick.signal else None,
            "in_flight": traffic[0],
            "queued": traffic[1],
            "last_decision": tick.record.last_decision,
            "diagnosis": self._diagnosis(pool, tick, now, away),
            "elsewhere": away,
            "cooldown_remaining_s": cooldown_remaining_s(
                pool.scaling, PolicyState.model_validate(tick.record.policy_state), now
            ),
            "paused": tick.record.paused,
            "goal": self.goal,
        }

    def _diagnosis(self, pool: PoolSpec, tick: PoolTick, now: float, away: Mapping[str, str]) -> list[str]:
        last = tick.record.last_decision
        # a number that a person asked for comes without bounds
        known = None if last is None else {"bounds": bounds(pool.scaling, now), **last}
        case = diagnosis.Case(
            pool.name,
            pool.scaling,
            None if known is None else Decision.model_validate(known),
            tick.signal,
            diagnosis.hosts(pool, self.records, tick.roomless, now, away),
            now,
            paused=tick.record.paused,
            goal=self.goal,
            stale_after_s=tick.stale_after_s,
            bursts=tick.bursts,
        )
        return list(diagnosis.diagnose(case))

    def _traffic(self, pool: str) -> tuple[int, int]:
        balancer = self.observation.balancer if self.observation else None
        for p in balancer.pools if balancer else ():
            if p.name == pool:
                return p.in_flight, p.queued
        return 0, 0

    def _host(self, name: str, pool: PoolSpec, in_flight: int, now: float) -> dict[str, Any]:
        record = self.records.get(name) or HostRecord(name, pool.name)
        report = self.observation.hosts.get(name) if self.observation else None
        status = report.status if report else None
        memory = status.device_memory.model_dump() if status else {"used_bytes": None, "total_bytes": None}
        power = self._host_power(name, record, now)
        error = record.error or (report.error if report else None) or (power["drift"] if power else None)
        tick = self.pools.get(pool.name)
        if error is None and tick is not None and name in tick.roomless:
            error = "has no room for the pool's model in device memory, so it gets no requests"
        return {
            "name": name,
            "pool": pool.name,
            "pools": [p.name for p in self.spec.pools_of(name)],
            "address": self.spec.host(name).address,
            "state": record.state.value,
            "since_s": max(0.0, now - record.since),
            "reason": self.waiting.get(name, record.reason),
            "models": [{"name": m.name, "version": m.version, "ready": m.ready} for m in status.models]
            if status
            else [],
            "in_flight": in_flight,
            "queued": status.queued if status else 0,
            "device_memory": memory,
            "p95_ms": self.latencies.p95_ms(name) if status else None,
            "error": error,
            "power": power,
            "cordoned": record.cordoned,
            "quarantined": record.quarantine is not None,
            "retry_in_s": max(0.0, record.retry_at - now) if record.retry_at else None,
        }

    def _host_power(self, name: str, record: HostRecord, now: float) -> dict[str, Any] | None:
        """What its power control said last; None where it has none."""
        driver = self.spec.host(name).power.driver
        if driver == "none":
            return None
        seen = self.power.get(name)
        return {
            "driver": driver,
            "state": seen.reading.state if seen else "unknown",
            "reason": seen.reading.reason if seen else "not asked yet",
            "age_s": max(0.0, now - seen.at) if seen else None,
            "drift": drift(record, seen),
            "boot_s": record.boot_s,
        }
