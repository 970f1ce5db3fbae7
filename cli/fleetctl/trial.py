"""What `fleetctl simulate` works on: a pool's scaling, the traffic, and what is assumed about its hosts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fleet_controller import simulate as simulation
from fleet_controller.simulate import Report, ServiceCurve, Setting, Trace, TraceError, read_trace
from fleet_controller.simulate.run import Watch
from fleet_controller.spec import FleetSpec, PoolSpec, ScalingSpec
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import Fleet
from fleetctl.render.text import age

A_DATE_S = (
    1e9  # timestamps from here on (the year 2001) are taken for Unix time, smaller ones for a stopwatch
)
MANY_REQUESTS = 3_000_000  # half a minute or more
DAYS_KEPT = 90 * 86400.0
MINUTE_S = 60


@dataclass(frozen=True)
class Traffic:
    """Requests to simulate, what came before them, and where they are from."""

    trace: Trace
    source: str
    history: Trace | None = None


@dataclass(frozen=True)
class Trial:
    """One pool on one traffic. `report` simulates a scaling block there."""

    fleet: FleetSpec
    pool: PoolSpec
    traffic: Traffic
    curve: ServiceCurve
    startup_s: float
    target_ms: float | None
    start_at: float
    seed: int

    @property
    def prices(self) -> tuple[float, ...]:
        """Of the pool's hosts, cheapest first; empty where one of them has none."""
        known = [h.price_per_hour for h in self.fleet.hosts if h.name in self.pool.hosts]
        if any(price is None for price in known):
            return ()
        return tuple(sorted(price for price in known if price is not None))

    def setting(self, scaling: ScalingSpec, start_at: float | None = None) -> Setting:
        target = (
            self.target_ms
            if self.target_ms is not None or scaling.latency is None
            else scaling.latency.target_ms
        )
        return Setting(
            startup_s=self.startup_s,
            curve=self.curve,
            interval_s=self.fleet.controller.interval,
            target_ms=target,
            start_at=self.start_at if start_at is None else start_at,
            seed=self.seed,
            prices=self.prices,
        )

    def report(
        self,
        scaling: ScalingSpec,
        *,
        watch: Watch | None = None,
        oracle_share: float | None = None,
        part: Trace | None = None,
        history: Trace | None = None,
    ) -> Report:
        """The run; of a `part` of the traffic, with its own `history`, where one is given."""
        trace, past, start_at = self.traffic.trace, self.traffic.history, self.start_at
        if part is not None:
            start_at += part.began - trace.began
            trace, past = part, history
        setting = self.setting(scaling, start_at)
        report = simulation.simulated(trace, scaling, setting, past, watch)
        if oracle_share is None:
            return report
        return report.model_copy(update={"oracle": simulation.oracle(trace, scaling, setting, oracle_share)})

    def assumed(self, scaling: ScalingSpec) -> dict[str, Any]:
        return {
            "hosts": scaling.max_servers,
            "startup_s": self.startup_s,
            "service_curve": {
                "base_s": self.curve.base_s,
                "per_request_s": self.curve.per_request_s,
                "max_batch": self.curve.max_batch,
                "jitter": self.curve.jitter,
                "capacity_rps": self.curve.capacity_rps,
            },
            "interval_s": self.fleet.controller.interval,
            "start_at": self.start_at,
            "seed": self.seed,
        }

    def told(self) -> dict[str, Any]:
        """The traffic, as JSON has it."""
        trace = self.traffic.trace
        return {
            "file": self.traffic.source,
            "requests": trace.requests,
            "seconds": trace.seconds,
            "interval_s": trace.interval_s or None,
        }

    def notes(self) -> list[str]:
        """What of the fleet file is not simulated, and what will take long."""
        notes = []
        routing = self.pool.routing or self.fleet.balancer.routing
        if routing != "least_connections":
            notes.append(f"the simulation picks hosts by least_connections, not by {routing}")
        for model in (self.fleet.model(name) for name in self.pool.models):
            if model.batching.max_queue_delay_ms:
                notes.append(
                    f"a free host takes what waits at once; max_queue_delay_ms of {model.name} is left out"
                )
        if self.traffic.trace.requests > MANY_REQUESTS:
            notes.append(
                f"{self.traffic.trace.requests:,} requests, simulated one by one: this takes a while"
            )
        return notes


def joined(one: Trace, more: Trace) -> Trace:
    """Two parts of a trace, the second right after the first. Raises ValueError where their intervals differ."""
    if one.interval_s != more.interval_s:
        raise ValueError(f"one counts by {one.interval_s:g} s, the other by {more.interval_s:g} s")
    rows = (*one.rows, *((one.seconds + at, n) for at, n in more.rows))
    return Trace(rows, one.interval_s, one.began)


def chosen_pool(fleet: FleetSpec, name: str | None) -> PoolSpec:
    if name is not None:
        return fleet.pool(name)
    if len(fleet.pools) > 1:
        names = ", ".join(f"--pool {pool.name}" for pool in fleet.pools)
        raise Failed(f"there are {len(fleet.pools)} pools; say which one: {names}", USAGE)
    return fleet.pools[0]


def with_hosts(scaling: ScalingSpec, hosts: int | None, source: Path) -> ScalingSpec:
    """`scaling` for a pool of so many hosts. Raises Failed where it asks for more than these."""
    if hosts is None:
        return scaling
    asked = {"min_servers": scaling.min_servers}
    for number, schedule in enumerate(scaling.schedules):
        for key in ("min_servers", "max_servers", "servers"):
            asked[f"schedules[{number}].{key}"] = getattr(schedule, key) or 0
    for key, servers in asked.items():
        if servers > hosts:
            raise Failed(
                f"--hosts {hosts} is less than scaling.{key} in {source}, which is {servers}; "
                "change one of them",
                USAGE,
            )
    return scaling.model_copy(update={"max_servers": hosts})


def service(given: dict[str, Any], fleet: FleetSpec, pool: PoolSpec, example: str) -> ServiceCurve:
    """The curve as given; its max_batch otherwise the smallest one of the pool's models."""
    batch = min(fleet.model(name).batching.max_batch_size for name in pool.models)
    curve = replace(ServiceCurve(max_batch=batch), **given)
    if curve.seconds_mean(curve.max_batch) <= 0:
        raise Failed(f"--service-curve: a batch takes no time at all; write it like {example}", USAGE)
    return curve


def read(file: Path) -> Trace:
    """The trace in `file`. Raises Failed (exit 2) with file and line."""
    try:
        with file.open(encoding="utf-8-sig") as lines:
            return read_trace(lines)
    except TraceError as error:
        place = f"{file}:{error.line}" if error.line else str(file)
        raise Failed(f"{place}: {error.message}", USAGE) from None
    except UnicodeDecodeError:
        raise Failed(f"{file}: is not UTF-8 text; a trace is a CSV file", USAGE) from None
    except OSError as error:
        raise Failed(f"{file}: can't be read: {error.strerror or error}", USAGE) from None


def read_history(file: Path, trace: Trace) -> Trace:
    """Earlier traffic. Raises Failed where it has no intervals, or is said to be later than the trace."""
    history = read(file)
    if not history.interval_s:
        raise Failed(
            f"{file}: has one arrival a line; --history needs counts per interval (timestamp_s,requests)",
            USAGE,
        )
    if min(history.began, trace.began) >= A_DATE_S and history.began + history.seconds > trace.began + 1.0:
        raise Failed(
            f"{file}: ends {age(history.began + history.seconds - trace.began)} after the trace begins; "
            "--history is what came before it",
            USAGE,
        )
    return history


def recorded(fleet: Fleet, pool: PoolSpec, since_s: float, now: float) -> Traffic:
    """The fleet's own requests of the last `since_s`, as the controller counted them, and those before as history.

    Raises Failed where there are none.
    """
    with fleet.history() as journal:
        known = journal.traffic(pool.name, now - DAYS_KEPT) if journal is not None else []
    counted = {minute.at: minute.requests for minute in known if minute.at + MINUTE_S <= now}
    late = [at for at in counted if at >= now - since_s]
    if len(late) < 2 or not any(counted[at] for at in late):
        raise Failed(
            f"no --trace, and of pool {pool.name} no requests are recorded in the last {age(since_s)}; "
            "give --trace FILE, a longer --since, or run the fleet first: its controller counts what comes in",
            USAGE,
        )
    first, edge, last = min(counted), min(late), max(late)
    trace = _minutes(counted, edge, last)
    history = _minutes(counted, first, edge - MINUTE_S) if first < edge else None
    return Traffic(trace, f"the traffic that pool {pool.name} recorded", history)


def _minutes(counted: dict[int, int], first: int, last: int) -> Trace:
    rows: Sequence[int] = range(first, last + MINUTE_S, MINUTE_S)
    return Trace(tuple((float(at - first), counted.get(at, 0)) for at in rows), float(MINUTE_S), float(first))


def began(traffic: Traffic, pool: PoolSpec, scalings: Sequence[ScalingSpec], start: float | None) -> float:
    """Unix time of the trace's first row. Raises Failed where schedules need it and nobody said it."""
    if start is not None:
        return start
    if traffic.trace.began < A_DATE_S and any(scaling.schedules for scaling in scalings):
        raise Failed(
            f"{traffic.source}: timestamp_s begins at {traffic.trace.began:g}, which is no date, and pool "
            f"{pool.name} has schedules; say when the trace begins, like --start 2026-03-02T08:00+01:00",
            USAGE,
        )
    return traffic.trace.began
