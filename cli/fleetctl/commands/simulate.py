"""`fleetctl simulate`."""

from __future__ import annotations

import math
import time
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from fleet_controller import spec
from fleet_controller.simulate.engine import COMPILES, WORTH_COMPILING
from fleet_controller.spec import ScalingSpec
from fleet_controller.spec.duration import seconds
from fleetctl import trial as trials
from fleetctl import tuning
from fleetctl.commands.options import duration
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import Fleet
from fleetctl.render import plot as plotting
from fleetctl.render.output import Form, Output, document
from fleetctl.render.simulation import compared, parts, tuned_parts
from fleetctl.render.terminal import show
from fleetctl.render.text import age, clean
from fleetctl.trial import Traffic, Trial

app = typer.Typer(rich_markup_mode=None, add_completion=False)

CURVE_EXAMPLE = "base=20ms,per_request=2ms,max_batch=32"
SHARE = 0.995
ORACLE_REQUESTS = {
    True: 1_500_000,
    False: 100_000,
}  # with and without numba: some ten seconds for its six runs
SCHEMA = "fleetctl/simulation/v1"
COMPARISON = "fleetctl/simulation-comparison/v1"
TUNING = "fleetctl/simulation-tuning/v1"


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


def _share(text: str | float) -> float:
    if isinstance(text, float):  # the default
        return text
    try:
        value = float(text.removesuffix("%")) / (100.0 if text.endswith("%") else 1.0)
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        meant = f"; did you mean {value:g}%?" if 1 < value < 100 else ""
        raise typer.BadParameter(f'"{text}" is not a share between 0 and 1, like 0.995 or 99.5%{meant}')
    return value


@app.command()
def simulate(
    ctx: typer.Context,
    files: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE]...", help="With --compare: the scaling blocks to compare."),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace",
            metavar="FILE",
            help="Traffic as CSV: timestamp_s,requests an interval, or timestamp_s an arrival. "
            "Without it: what the fleet's own controller recorded.",
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option("--history", metavar="FILE", help="Earlier traffic, which the forecast has seen."),
    ] = None,
    since: Annotated[
        float,
        typer.Option(
            "--since",
            parser=duration,
            metavar="DURATION",
            help="Without --trace: how much of the recorded traffic; what came before it is history.",
        ),
    ] = 86400.0,
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
    compare: Annotated[
        bool, typer.Option("--compare", help="Simulate each FILE's scaling on the same arrivals.")
    ] = False,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Search for the cheapest setting that holds the target; print the diff."),
    ] = False,
    write: Annotated[bool, typer.Option("--write", help="With --tune: change the file, too.")] = False,
    share: Annotated[
        float,
        typer.Option(
            "--share",
            parser=_share,
            metavar="SHARE",
            help="Of the requests: what --tune and the oracle hold.",
        ),
    ] = SHARE,
    oracle: Annotated[
        bool | None,
        typer.Option(
            "--oracle/--no-oracle",
            help="Find what somebody who knows the arrivals would need; by itself for traces that are not too long.",
        ),
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            "--plot", metavar="FILE", help="Draw load, servers and latency into a .png, .svg or .pdf."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="The same seed gives the same figures.")] = 1,
    output: Output = Form.TABLE,
) -> None:
    """What a pool's scaling would do on recorded traffic: the latency it keeps, and the server-hours it takes.

    Runs the controller's own measuring and policies against hosts that exist only as events. Needs no running
    fleet; changes nothing without --write.
    """
    files = files or []
    _fit_together(files, compare, tune, write, policy_file, plot)
    if plot is not None:
        plotting.check(plot)
    fleet = Fleet.of(ctx)
    chosen = trials.chosen_pool(fleet.spec, pool)
    own = policy_file or fleet.spec.source
    sources = files if len(files) > 1 else [own, *files]
    scalings = []
    for source in sources:
        block = chosen.scaling if source == fleet.spec.source else spec.load_scaling(source, chosen.name)
        scalings.append(trials.with_hosts(block, hosts, source))
    curve = trials.service(service_curve or {}, fleet.spec, chosen, CURVE_EXAMPLE)
    traffic = _traffic(fleet, chosen, trace, history, since)
    start_at = trials.began(traffic, chosen, scalings, start)
    case = Trial(fleet.spec, chosen, traffic, curve, startup, target_ms, start_at, seed)
    for note in case.notes():
        typer.echo(clean(f"note: {note}"), err=True)
    if compare:
        told = _compared(case, sources, scalings)
        _print(told, output, compared(told))
    elif tune:
        told = _tuned(case, own, scalings[0], share, write)
        _print(told, output, tuned_parts(told))
        if told["best"] is None and not told["holds"]:
            raise Failed(f"no setting that was tried holds {share:.2%} within the target; see above")
    else:
        told = _told(case, own, scalings[0], _wants_oracle(oracle, case, scalings[0]), share, plot)
        _print(told, output, parts(told))


def _fit_together(
    files: list[Path], compare: bool, tune: bool, write: bool, policy_file: Path | None, plot: Path | None
) -> None:
    """Raises Failed for options that say nothing together."""
    wrong = None
    if files and not compare:
        wrong = f'"{files[0]}" is given without an option; write --trace {files[0]}, or --compare before scaling blocks'
    elif compare and not files:
        wrong = "--compare needs the files to compare, like: --compare calm.yaml eager.yaml"
    elif compare and (tune or plot is not None):
        wrong = f"--compare and {'--tune' if tune else '--plot'} are different things; leave one of them out"
    elif compare and policy_file is not None and len(files) > 1:
        wrong = "--compare has its files; leave out --policy-file"
    elif tune and plot is not None:
        wrong = "--tune and --plot are different things; leave one of them out"
    elif write and not tune:
        wrong = "--write writes what --tune finds; it does nothing alone"
    if wrong:
        raise Failed(wrong, USAGE)


def _traffic(
    fleet: Fleet, pool: spec.PoolSpec, trace: Path | None, history: Path | None, since: float
) -> Traffic:
    if trace is None:
        found = trials.recorded(fleet, pool, since, time.time())
        if history is not None:
            raise Failed("--history goes with --trace; recorded traffic brings its own", USAGE)
        return found
    rows = trials.read(trace)
    return Traffic(rows, str(trace), None if history is None else trials.read_history(history, rows))


def _wants_oracle(asked: bool | None, case: Trial, scaling: ScalingSpec) -> bool:
    if asked is None:
        most = ORACLE_REQUESTS[COMPILES]
        return case.traffic.trace.requests <= most
    if asked and case.setting(scaling).target_ms is None:
        raise Failed("--oracle holds a latency target, and there is none; give --target-ms", USAGE)
    if asked and not COMPILES and case.traffic.trace.requests > WORTH_COMPILING:
        typer.echo(
            "note: the oracle runs the trace up to six times; fast with numba: pip install 'fleetctl[simulate]'",
            err=True,
        )
    return asked


def _print(told: dict[str, Any], output: Form, page: list[Any]) -> None:
    if output is Form.TABLE:
        show(*page)
    else:
        typer.echo(document(told, output))


def _told(
    case: Trial, source: Path, scaling: ScalingSpec, oracle: bool, share: float, plot: Path | None
) -> dict[str, Any]:
    looks = plotting.Looks() if plot is not None else None
    report = case.report(scaling, watch=looks, oracle_share=share if oracle else None)
    timeout = case.fleet.balancer.queue.timeout
    if report.longest_ms is not None and report.longest_ms > 1000 * timeout:
        typer.echo(
            f"note: some requests waited up to {age(report.longest_ms / 1000)}; a balancer refuses those that wait "
            f"over {age(timeout)} (balancer.queue.timeout), here they are late",
            err=True,
        )
    if looks is not None and plot is not None:
        plotting.draw(plot, looks, report, f"pool {case.pool.name} as {source} scales it")
        typer.echo(clean(f"drawn into {plot}"), err=True)
    return {
        "schema": SCHEMA,
        "fleet": case.fleet.fleet,
        "pool": case.pool.name,
        "policy_file": str(source),
        "trace": case.told(),
        "assumed": case.assumed(scaling),
        **report.model_dump(mode="json"),
    }


def _compared(case: Trial, sources: list[Path], scalings: list[ScalingSpec]) -> dict[str, Any]:
    runs = []
    for source, scaling in zip(sources, scalings, strict=True):
        report = case.report(scaling)
        runs.append(
            {"policy_file": str(source), "hosts": scaling.max_servers, **report.model_dump(mode="json")}
        )
    return {
        "schema": COMPARISON,
        "fleet": case.fleet.fleet,
        "pool": case.pool.name,
        "trace": case.told(),
        "assumed": case.assumed(scalings[0]),
        "runs": runs,
    }


def _tuned(case: Trial, source: Path, scaling: ScalingSpec, share: float, write: bool) -> dict[str, Any]:
    found = tuning.tuned(case, scaling, share)
    text, diff = (
        tuning.diff(source, case.pool.name, found.best.changes) if found.best is not None else ("", "")
    )
    if write and found.best is not None:
        tuning.write(source, text)
    kept = {"turns"}
    return {
        "schema": TUNING,
        "fleet": case.fleet.fleet,
        "pool": case.pool.name,
        "policy_file": str(source),
        "trace": case.told(),
        "assumed": case.assumed(scaling),
        "share": share,
        "runs": found.runs,
        "holds": found.before.holds(share) and (found.before_judged.within_target or 0.0) >= share,
        "before": {
            "searched": found.before.report.model_dump(mode="json", exclude=kept),
            "judged": found.before_judged.model_dump(mode="json", exclude=kept),
        },
        "best": None
        if found.best is None or found.best_judged is None
        else {
            "changes": {".".join(knob): new for knob, new in found.best.changes},
            "searched": found.best.report.model_dump(mode="json", exclude=kept),
            "judged": found.best_judged.model_dump(mode="json", exclude=kept),
        },
        "closest": {
            "changes": {".".join(knob): new for knob, new in found.closest.changes},
            "searched": found.closest.report.model_dump(mode="json", exclude=kept),
        },
        "refused": [
            {
                "changes": {".".join(knob): new for knob, new in one.changes},
                "judged": report.model_dump(mode="json", exclude=kept),
            }
            for one, report in found.refused
        ],
        "diff": diff,
        "written": bool(write and diff),
    }
