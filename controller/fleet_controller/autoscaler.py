"""Autoscaler: how many servers each pool should run, tick by tick.

Keeps a window per pool, asks the policies, and journals what they say together with what they must remember.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from fleet_controller.explain import diagnosis
from fleet_controller.explain.bursts import Bursts, bursts
from fleet_controller.explain.chronicle import Chronicle, inputs
from fleet_controller.explain.tally import Tally
from fleet_controller.journal import DecisionRecord, HostRecord, Journal, PoolRecord
from fleet_controller.lifecycle import STARTING_UP, HostState
from fleet_controller.observe import Observation
from fleet_controller.plan.choice import measured
from fleet_controller.plan.placement import elsewhere, held
from fleet_controller.policies import STALE_AFTER_S, Decision, PolicyState, decide
from fleet_controller.policies.predictive import DEFAULT_STARTUP_S, NOTICE_S, capacity
from fleet_controller.policies.schedule import bounds
from fleet_controller.samples import host_samples, pool_sample
from fleet_controller.spec import FleetSpec, PoolSpec
from fleet_controller.tick import PoolTick
from fleet_controller.view import roomless
from fleet_controller.window import Learned, PoolSample, Signal, Window

# A signal that missed this many ticks is stale.
STALE_TICKS = 3
# The traffic of the last day is looked at this often for bursts that no scaling answers.
BURSTS_EVERY_S = 600.0
DAY_S = 86400.0


class Autoscaler:
    """The decisions for all pools of a fleet."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._windows: dict[str, Window] = {}
        self._ready_since: dict[str, float] = {}
        self._chronicles: dict[str, Chronicle] = {}
        self._tallies: dict[str, Tally] = {}
        self._speeds: dict[str, dict[str, float]] = {}
        self._bursts: dict[str, tuple[float, Bursts | None]] = {}

    def tick(
        self,
        spec: FleetSpec,
        pool: PoolSpec,
        observation: Observation,
        records: Mapping[str, HostRecord],
        goal: str,
    ) -> PoolTick:
        """Feed the pool's window with what was observed, and decide where `goal` is "up"."""
        now = observation.at
        record = self._journal.pool(pool.name)
        every, pool = pool, held(spec, pool, records)
        window = self._window(pool, record)
        self._learn_starts(window, pool, records, now, 2 * spec.controller.interval)
        speeds = self._learn_speeds(every, pool, record, observation)
        counted = pool_sample(pool, observation)
        window.feed(now, counted, host_samples(pool, observation))
        self._tally(pool, counted, now)
        without_room = roomless(spec, pool, observation)
        ready = [n for n in pool.hosts if records[n].state is HostState.READY and n not in without_room]
        starting = [n for n in pool.hosts if records[n].state in STARTING_UP]
        signal = window.signal(now, ready=len(ready), starting=len(starting))
        stale_after_s = max(STALE_AFTER_S, STALE_TICKS * spec.controller.interval)
        decision = None
        found = self._too_fast(pool, record, signal, now)
        if goal == "up":
            record = replace(
                record,
                learned=window.learned.model_dump(mode="json") | ({"speeds": speeds} if speeds else {}),
            )
            if not record.paused or record.desired is None:
                record, decision = self._decide(pool, record, signal, now, stale_after_s)
            said = _paused(pool, record, now) if decision is None else decision
            hosts = diagnosis.hosts(every, records, without_room, now, elsewhere(spec, every, records))
            self._journal.save_pool(
                record, self._noted(pool, record, said, signal, hosts, now, stale_after_s, found)
            )
        return PoolTick(record, signal, window.latency_ms(now), without_room, decision, stale_after_s, found)

    def _window(self, pool: PoolSpec, record: PoolRecord) -> Window:
        window = self._windows.get(pool.name)
        if window is None:
            learned = Learned.model_validate(record.learned)
            window = self._windows[pool.name] = Window(pool.scaling, learned)
        window.spec = pool.scaling
        return window

    def _learn_starts(
        self, window: Window, pool: PoolSpec, records: Mapping[str, HostRecord], now: float, lately_s: float
    ) -> None:
        """Tell the window how long each host took that became ready since the last tick."""
        for name in pool.hosts:
            record = records[name]
            if record.state is not HostState.READY or self._ready_since.get(name) == record.since:
                continue
            self._ready_since[name] = record.since
            if record.startup_s and record.since > now - lately_s:
                window.started(record.startup_s)

    def _learn_speeds(
        self, every: PoolSpec, pool: PoolSpec, record: PoolRecord, observation: Observation
    ) -> dict[str, float]:
        """What each host that may serve the pool was measured to do, as far as it ever served it."""
        known = self._speeds.get(pool.name)
        if known is None:
            known = self._speeds[pool.name] = dict(record.learned.get("speeds") or {})
        for name in known.keys() - set(every.hosts) if known else ():
            del known[name]
        for name in pool.hosts:
            report = observation.hosts.get(name)
            speed = measured(report.status, pool.models) if report is not None and report.status else None
            if speed is not None:
                known[name] = float(f"{speed:.2g}")
        return dict(known)

    def speeds(self, pool: str) -> Mapping[str, float]:
        """Items per second of the pool's hosts that were measured."""
        return self._speeds.get(pool, {})

    def _tally(self, pool: PoolSpec, counted: PoolSample | None, now: float) -> None:
        """Keep what came in, a minute at a time."""
        tally = self._tallies.get(pool.name)
        if tally is None:
            tally = self._tallies[pool.name] = Tally(self._journal.traffic_mark(pool.name))
        over = tally.feed(now, counted)
        if over is not None:
            self._journal.keep_traffic(pool.name, *over)

    def _too_fast(self, pool: PoolSpec, record: PoolRecord, signal: Signal, now: float) -> Bursts | None:
        """What of the last day's load no scaling can answer in time, where there is a latency target to hold."""
        target = pool.scaling.latency
        if target is None:
            return None
        at, known = self._bursts.get(pool.name, (now - BURSTS_EVERY_S, None))
        if 0 <= now - at < BURSTS_EVERY_S:
            return known
        can = capacity(pool.scaling, PolicyState.model_validate(record.policy_state).profile, signal)
        found = None
        if can is not None:
            late_s = (signal.startup_s or DEFAULT_STARTUP_S) + NOTICE_S
            low, allowed = bounds(pool.scaling, now).low, 1.0 - target.percentile / 100.0
            found = bursts(self._journal.traffic(pool.name, now - DAY_S), can.servers, late_s, low, allowed)
        self._bursts[pool.name] = (now, found)
        return found

    def _noted(
        self,
        pool: PoolSpec,
        record: PoolRecord,
        decision: Decision,
        signal: Signal,
        hosts: diagnosis.Hosts,
        now: float,
        stale_after_s: float,
        found: Bursts | None,
    ) -> DecisionRecord | None:
        """The decision and its inputs for the journal, where it differs from what is written there."""
        case = diagnosis.Case(
            pool.name,
            pool.scaling,
            decision,
            signal,
            hosts,
            now,
            paused=record.paused,
            stale_after_s=stale_after_s,
            bursts=found,
        )
        chronicle = self._chronicles.setdefault(pool.name, Chronicle(pool.name))
        return chronicle.note(now, inputs(decision, signal, record.policy_state, diagnosis.diagnose(case)))

    def _decide(
        self, pool: PoolSpec, record: PoolRecord, signal: Signal, now: float, stale_after_s: float
    ) -> tuple[PoolRecord, Decision]:
        before = PolicyState.model_validate(record.policy_state)
        decision, state = decide(pool.scaling, before, signal, now, stale_after_s=stale_after_s)
        if decision.desired != record.desired:
            data = {"from": record.desired, "to": decision.desired, "signal": signal.model_dump(mode="json")}
            self._journal.record(now, "scale", decision.reason, pool.name, data=data)
            record = replace(record, desired=decision.desired, why=decision.reason)
        said = {"at": now, **decision.model_dump(mode="json")}
        return replace(record, policy_state=state.model_dump(mode="json"), last_decision=said), decision


def _paused(pool: PoolSpec, record: PoolRecord, now: float) -> Decision:
    """What holds while an operator keeps the number: nothing is decided, and that is worth knowing later."""
    desired = record.desired or 0
    return Decision(
        desired=desired,
        reason=f"paused by an operator, stays at {desired}",
        winner="operator",
        blocked_by=("paused by an operator",),
        bounds=bounds(pool.scaling, now),
    )
