"""Pools as plan sees them, written in one line a host."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleet_controller.lifecycle import STARTING_UP, HostState
from fleet_controller.observe import Observation
from fleet_controller.plan import PoolView, Step
from fleet_controller.plan.placement import held
from fleet_controller.plan.tiers import fleet_steps
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec, HostSpec, ModelSpec, PoolSpec
from fleet_controller.view import pool_rank, pool_view

NOW = 1_790_000_000.0
OLD, NEW = "release-1", "release-2"
RUNNING = frozenset({HostState.READY, HostState.DRAINING, HostState.LOADING})


@pytest.fixture
def now() -> float:
    return NOW


@pytest.fixture
def pool() -> Callable[..., PoolView]:
    """pool({"a": "ready", "b": {"state": "off", "price": 2.0}}, desired=2): what plan looks at."""

    def make(hosts: dict[str, str | dict[str, Any]], desired: int = 1, **view: Any) -> PoolView:
        specs, records = [], {}
        for name, said in hosts.items():
            known: dict[str, Any] = {"state": said} if isinstance(said, str) else dict(said)
            price, protect = known.pop("price", None), known.pop("protect", False)
            power = known.pop("power", {"driver": "none"})
            specs.append(
                HostSpec.model_validate(
                    {
                        "name": name,
                        "address": "local",
                        "price_per_hour": price,
                        "protect": protect,
                        "power": power,
                    }
                )
            )
            state = HostState(known.pop("state"))
            known.setdefault("release", NEW if state in RUNNING else None)
            records[name] = HostRecord(name, pool="default", state=state, **known)
        # a host that starts has an open action, unless the test says otherwise
        view.setdefault("busy", frozenset(n for n, r in records.items() if r.state in STARTING_UP))
        return PoolView("default", tuple(specs), records, desired, "the decision", NEW, **view)

    return make


class Sharing:
    """Pools that share hosts, and a clock: steps are carried out, a start and a stop taking `takes` ticks of 5 s.

    `pools`: {"name": {"hosts": "abc", "tier": "batch", "floor": 1, "cooldown": 60.0}}; each letter is a host.
    """

    def __init__(
        self,
        pools: Mapping[str, Mapping[str, Any]],
        hosts: Mapping[str, Mapping[str, Any]] | None = None,
        takes: int = 2,
    ) -> None:
        names = sorted({name for pool in pools.values() for name in pool["hosts"]})
        model = ModelSpec.model_construct(
            name="m", source=Path("/m"), entrypoint="m:M", device_memory_bytes=None
        )
        self.spec = FleetSpec.model_construct(
            fleet="f",
            hosts=tuple(
                HostSpec.model_validate({"name": n, "address": "local", **(hosts or {}).get(n, {})})
                for n in names
            ),
            models=(model,),
            pools=tuple(_pool(name, said) for name, said in pools.items()),
            source=Path("/fleet.yaml"),
        )
        self.records = {n: HostRecord(n) for n in names}
        self.desired = dict.fromkeys(pools, 0)
        self.now = NOW
        self.takes = takes
        self.broken: set[tuple[str, str]] = set()  # (pool, host): it fails to start there
        self.undecided: set[str] = set()
        self.work: dict[str, tuple[str, int]] = {}
        self.done: list[Step] = []
        self.before = dict(self.records)  # as the last plan saw them

    def plan(self, goal: str = "up") -> list[Step]:
        seen = Observation(self.now, {}, None, None)
        ranks = []
        for pool in self.spec.pools:
            view = pool_view(
                self.spec, pool, self.records, self.desired[pool.name], f"release-{pool.name}", "the decision",
                frozenset(self.work), seen,
            )  # fmt: skip
            ranks.append(pool_rank(self.spec, pool, view, seen, pool.name not in self.undecided))
        return fleet_steps(ranks, goal, self.now)

    def tick(self) -> list[Step]:
        for host, (kind, left) in list(self.work.items()):
            if left > 1:
                self.work[host] = (kind, left - 1)
                continue
            del self.work[host]
            self._ends(host, kind)
        self.before = dict(self.records)
        found = self.plan()
        for step in found:
            self.begins(step)
        self.done += found
        self.now += 5.0
        return found

    def begins(self, step: Step) -> None:
        if step.kind == "inspect":
            return
        state = HostState.STARTING if step.kind == "start" else HostState.DRAINING
        self._moves(step.host, state, step.reason, pool=step.pool)
        self.work[step.host] = (step.kind, self.takes)

    def _ends(self, host: str, kind: str) -> None:
        record = self.records[host]
        if kind == "stop":
            self._moves(host, HostState.OFF, record.reason, release=None, failures=0)
        elif (record.pool, host) in self.broken:
            failures, retry = record.failures + 1, 5.0 * 2**record.failures
            self._moves(host, HostState.FAILED, "start failed", failures=failures, retry_at=self.now + retry)
        else:
            self._moves(host, HostState.READY, record.reason, release=f"release-{record.pool}")

    def _moves(self, host: str, state: HostState, reason: str, **changes: Any) -> None:
        record = replace(self.records[host], state=state, since=self.now, reason=reason, **changes)
        self.records[host] = record

    def run(self, ticks: int, **desired: int) -> list[Step]:
        """So many ticks at these numbers; all steps that were taken."""
        self.desired |= desired
        return [step for _ in range(ticks) for step in self.tick()]

    def has(self, pool: str, *states: HostState) -> str:
        """The hosts that `pool` has in one of `states` (READY), as letters."""
        names = held(self.spec, self.spec.pool(pool), self.records).hosts
        return "".join(n for n in names if self.records[n].state in (states or (HostState.READY,)))


def _pool(name: str, said: Mapping[str, Any]) -> PoolSpec:
    scaling = {
        "min_servers": said.get("floor", 0),
        "max_servers": 99,
        "cooldown": {"scale_down": f"{said.get('cooldown', 60.0):g}s"},
    }
    block = {
        "name": name,
        "hosts": list(said["hosts"]),
        "models": ["m"],
        "tier": said.get("tier", "interactive"),
    }
    return PoolSpec.model_validate({**block, "scaling": scaling})


@pytest.fixture
def sharing() -> Callable[..., Sharing]:
    return Sharing
