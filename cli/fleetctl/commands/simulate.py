"""`fleetctl simulate`."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_controller import simulate as simulation
from fleet_controller import spec
from fleet_controller.simulate import ServiceCurve, Trace, TraceError, read_trace
from fleet_controller.spec import FleetSpec, PoolSpec, ScalingSpec
from fleet_controller.spec.duration import seconds
from fleetctl.commands.options import duration
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import fleet_file
from fleetctl.render.output import Form, Output, document
from fleetctl.render.simulation import parts
from fleetctl.render.terminal import show
from fleetctl.render.text import age, clean

app = typer.Typer(rich_markup_mode=None, add_completion=False)

CURVE_EXAMPLE = "base=20ms,per_request=2ms,max_batch=32"
A_DATE_S = (
    1e9  # timestamps from here on (the year 2001) are taken for Unix time, smaller ones for a stopwatch
)
MANY_REQUESTS = 3_000_000  # half a minute or more


def _curve(text: str) -> dict[str, Any]:
    """The parts of a ServiceCurve that `text` gives. Raises typer.BadParameter."""
    given: dict[str, Any] = {}
    for part in text.split(","):
        key, _, value = (word.strip() for word in part.partition("="))
        try:
            if key in given:
                raise ValueError("is given twice")
            match key:
                case "base" | "per_request":
                    given[key] = seconds(float(value) if value.isdigit() else value)
                case "max_batch":
                    if not (value.isascii() and value.isdigit() and int(value) > 0):
                        raise ValueError(f'"{value}" is not a number of requests from 1 on')
                    given[key] = int(value)
                case "jitter":
                    if value not in ("none", "exponential"):
                        raise ValueError(f'"{value}" is not none or exponential')
                    given[key] = value
                case _:
                    raise ValueError("is not known; known are base, per_request, max_batch and jitter")
        except ValueError as error:
            raise typer.BadParameter(f"{key or part!r}: {error}; write it like {CURVE_EXAMPLE}") from error
    for key in ("base", "per_request"):
        if key in given:
            given[f"{key}_s"] = given.pop(key)
    return given


def _moment(text: str) -> float:
    """Unix seconds of an ISO 8601 time. Raises typer.BadParameter."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise typer.BadParameter(
            f'"{text}" is not a time with its offset from UTC; write it like 2026-03-02T08:00+01:00'
        )
    return moment.timestamp()


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise typer.BadParameter(f'"{text}" is not a number of milliseconds above 0; write it like 200')
    return value


@app.command()
def simulate(
    ctx: typer.Context,
    trace: Annotated[
        Path,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Traffic as CSV: timestamp_s,requests an interval, or timestamp_s an arrival.",
        ),
    ],
    pool: Annotated[
        str | None,
        typer.Option("--pool", metavar="NAME", help="Which pool's scaling, where there are several."),
    ] = None,
    hosts: Annotated[
        int | None,
        typer.Option("--hosts", metavar="N", min=1, help="How many hosts there are, instead of max_servers."),
    ] = None,
    startup: Annotated[
        float,
        typer.Option("--startup", parser=duration, metavar="DURATION", help="From a host's start to ready."),
    ] = 60.0,
    target_ms: Annotated[
        float | None,
        typer.Option(
            "--target-ms",
            parser=_milliseconds,
            metavar="X",
            help="Count the share of answers within X ms, instead of within latency.target_ms.",
        ),
    ] = None,
    service_curve: Annotated[
        dict[str, Any] | None,
        typer.Option(
            "--service-curve",
            parser=_curve,
            metavar="CURVE",
            help=f"How long a host takes for a batch: {CURVE_EXAMPLE}",
        ),
    ] = None,
    policy_file: Annotated[
        Path | None,
        typer.Option("--policy-file", metavar="FILE", help="Take the scaling block from here."),
    ] = None,
    start: Annotated[
        float | None,
        typer.Option(
            "--start",
            parser=_moment,
            metavar="TIME",
            help="When the trace begins, for schedules; else its timestamps say so.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same figures.")] = 1,
    output: Output = Form.TABLE,
) -> None:
    """What a pool's scaling would do on recorded traffic: the latency it keeps, and the server-hours it takes.

    Runs the controller's own measuring and policies against hosts that exist only as events. Needs no running
    fleet, changes nothing.
    """
    fleet = spec.load(fleet_file(ctx))
    chosen = _pool(fleet, pool)
    scaling = chosen.scaling if policy_file is None else spec.load_scaling(policy_file, chosen.name)
    source = fleet.source if policy_file is None else policy_file
    if hosts is not None:
        scaling = _with_hosts(scaling, hosts, source)
    curve = _service(service_curve or {}, fleet, chosen)
    traffic = _read(trace)
    case = _Case(fleet, chosen, scaling, source, curve, traffic, trace)
    began = _began(case, start)
    for note in _notes(case):
        typer.echo(clean(f"note: {note}"), err=True)
    report = simulation.simulate(
        traffic,
        scaling,
        startup_s=startup,
        curve=curve,
        interval_s=fleet.controller.interval,
        target_ms=target_ms,
        start_at=began,
        seed=seed,
    )
    timeout = fleet.balancer.queue.timeout
    if report.longest_ms is not None and report.longest_ms > 1000 * timeout:
        typer.echo(
            f"note: some requests waited up to {age(report.longest_ms / 1000)}; a balancer refuses those that wait "
            f"over {age(timeout)} (balancer.queue.timeout), here they are late",
            err=True,
        )
    told: dict[str, Any] = {
        "schema": "fleetctl/simulation/v1",
        "fleet": fleet.fleet,
        "pool": chosen.name,
        "policy_file": str(source),
        "trace": {
            "file": str(trace),
            "requests": traffic.requests,
            "seconds": traffic.seconds,
            "interval_s": traffic.interval_s or None,
        },
        "assumed": {
            "hosts": scaling.max_servers,
            "startup_s": startup,
            "service_curve": asdict(curve) | {"capacity_rps": curve.capacity_rps},
            "interval_s": fleet.controller.interval,
            "start_at": began,
            "seed": seed,
        },
        **report.model_dump(mode="json"),
    }
    if output is Form.TABLE:
        show(*parts(told))
    else:
        typer.echo(document(told, output))


@dataclass(frozen=True)
class _Case:
    """What is simulated: this scaling, of that file, on this traffic."""

    fleet: FleetSpec
    pool: PoolSpec
    scaling: ScalingSpec
    source: Path
    curve: ServiceCurve
    traffic: Trace
    trace_file: Path


def _pool(fleet: FleetSpec, name: str | None) -> PoolSpec:
    if name is not None:
        return fleet.pool(name)
    if len(fleet.pools) > 1:
        names = ", ".join(f"--pool {pool.name}" for pool in fleet.pools)
        raise Failed(f"there are {len(fleet.pools)} pools; say which one: {names}", USAGE)
    return fleet.pools[0]


def _with_hosts(scaling: ScalingSpec, hosts: int, source: Path) -> ScalingSpec:
    """`scaling` for a pool of so many hosts. Raises Failed where it asks for more than these."""
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


def _service(given: dict[str, Any], fleet: FleetSpec, pool: PoolSpec) -> ServiceCurve:
    """The curve as given; its max_batch otherwise the smallest one of the pool's models."""
    batch = min(fleet.model(name).batching.max_batch_size for name in pool.models)
    curve = replace(ServiceCurve(max_batch=batch), **given)
    if curve.seconds_mean(curve.max_batch) <= 0:
        raise Failed(f"--service-curve: a batch takes no time at all; write it like {CURVE_EXAMPLE}", USAGE)
    return curve


def _read(file: Path) -> Trace:
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


def _began(case: _Case, start: float | None) -> float:
    """Unix time of the trace's first row. Raises Failed where schedules need it and nobody said it."""
    if start is None and case.scaling.schedules and case.traffic.began < A_DATE_S:
        raise Failed(
            f"{case.trace_file}: timestamp_s begins at {case.traffic.began:g}, which is no date, and pool "
            f"{case.pool.name} has schedules; say when the trace begins, like --start 2026-03-02T08:00+01:00",
            USAGE,
        )
    return case.traffic.began if start is None else start


def _notes(case: _Case) -> list[str]:
    """What of the fleet file is not simulated, and what will take long."""
    notes = []
    routing = case.pool.routing or case.fleet.balancer.routing
    if routing != "least_connections":
        notes.append(f"the simulation picks hosts by least_connections, not by {routing}")
    for model in (case.fleet.model(name) for name in case.pool.models):
        if model.batching.max_queue_delay_ms:
            notes.append(
                f"a free host takes what waits at once; max_queue_delay_ms of {model.name} is left out"
            )
    if case.traffic.requests > MANY_REQUESTS:
        notes.append(f"{case.traffic.requests:,} requests, simulated one by one: this takes a while")
    return notes
