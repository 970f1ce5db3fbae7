"""`fleetctl simulate --tune`: the search on one part of the traffic, its judgement on the other, and the diff."""

from __future__ import annotations

import difflib
import os
import sys
import tempfile
from pathlib import Path

import typer

from fleet_controller import spec
from fleet_controller.simulate.report import Report
from fleet_controller.simulate.trace import Trace
from fleet_controller.simulate.tune import MOST_RUNS, Knob, Tried, Tuned, Value, changed, split, tune
from fleet_controller.spec import ScalingSpec, document
from fleet_controller.spec.edit import edited
from fleet_controller.spec.problem import Steps
from fleetctl.failure import USAGE, Failed
from fleetctl.render.text import age, clean
from fleetctl.trial import Trial, joined


def tuned(trial: Trial, scaling: ScalingSpec, share: float) -> Tuned:
    """Raises Failed where there is no target to hold or too little traffic."""
    target = trial.setting(scaling).target_ms
    if target is None:
        raise Failed(
            "--tune looks for the cheapest setting that holds a latency target, and there is none; "
            "set scaling.latency.target_ms or give --target-ms",
            USAGE,
        )
    try:
        search, judge = split(trial.traffic.trace)
    except ValueError as error:
        raise Failed(f"{trial.traffic.source}: {error}", USAGE) from None
    before = _before(trial.traffic.history, search)
    typer.echo(
        clean(
            f"note: tries up to {MOST_RUNS} settings on the first {age(search.seconds)}, "
            f"judges the best on the {age(judge.seconds)} after it"
        ),
        err=True,
    )
    return tune(
        scaling,
        share,
        lambda s: trial.report(s, part=search, history=trial.traffic.history),
        lambda s: trial.report(s, part=judge, history=before),
        most_runs=MOST_RUNS,
        told=_progress if sys.stderr.isatty() else None,
    )


def _before(history: Trace | None, search: Trace) -> Trace | None:
    """What the judged part may remember: the searched part, and what came before it where it counts alike."""
    if not search.interval_s:
        return history
    if history is None or history.interval_s != search.interval_s:
        return search
    return joined(history, search)


def _progress(number: int, tried: Tried) -> None:
    typer.echo(clean(f"{number}: {summary(tried.report)}: {named(tried.changes)}"), err=True)


def summary(report: Report) -> str:
    within = report.within_target
    return (
        f"{'-' if within is None else f'{within:.2%}'} within target, {report.server_hours:.2f} server-hours"
    )


def named(changes: tuple[tuple[Knob, Value], ...]) -> str:
    return ", ".join(f"{'.'.join(knob)} {written(knob, new)}" for knob, new in changes) or "as it is"


def written(knob: Knob, value: Value) -> str:
    """A knob's value as fleet.yaml has it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if knob[0] in ("cooldown", "stabilization"):
        return f"{value / 60:g}m" if value and value % 60 == 0 and value > 60 else f"{value:g}s"
    return f"{value:g}"


def diff(source: Path, pool: str, changes: tuple[tuple[Knob, Value], ...]) -> tuple[str, str]:
    """The new text of `source` with these values in the scaling of `pool`, and the unified diff to it.

    Raises Failed where the file is written in a way (an anchor, a merge key) that these can't be put in alone.
    """
    try:
        with source.open(encoding="utf-8-sig", newline="") as file:
            old = file.read()
    except OSError as error:
        raise Failed(f"{source}: can't be read: {error.strerror or error}") from None
    by_hand = (
        f"{source}: can't be changed without touching more than this; write it by hand: {named(changes)}"
    )
    before, steps = _place(source, pool)
    new = old
    try:
        for knob, value in changes:
            new = edited(new, (*steps, *knob), written(knob, value))
    except LookupError:
        raise Failed(by_hand) from None
    if not _means(source, new, pool, changed(before, dict(changes))):
        raise Failed(by_hand)
    lines = difflib.unified_diff(
        old.splitlines(keepends=True), new.splitlines(keepends=True), str(source), f"{source} (tuned)"
    )
    return new, "".join(lines)


def _place(source: Path, pool: str) -> tuple[ScalingSpec, Steps]:
    """The scaling block that `source` has for the pool, and where it stands."""
    scaling = spec.load_scaling(source, pool)
    root = document.read(source).value
    if "pools" not in root:
        return scaling, ("scaling",)
    names = [item.get("name") if isinstance(item, dict) else None for item in root["pools"]]
    number = names.index(pool) if len(names) > 1 else 0
    return scaling, ("pools", number, "scaling")


def _means(source: Path, text: str, pool: str, wanted: ScalingSpec) -> bool:
    """Whether `text` in place of the file describes `wanted`, and everything else as before."""
    try:
        if spec.load_scaling(source, pool, text.encode()) != wanted:
            return False
        if "pools" not in document.read(source).value:
            return True
        old, new = spec.load(source), spec.load(source, text.encode())
    except spec.SpecError:
        return False
    same = [
        one == other or (one.name == other.name and other.scaling == wanted)
        for one, other in zip(old.pools, new.pools, strict=True)
    ]
    moved = sum(one != other for one, other in zip(old.pools, new.pools, strict=True))
    return all(same) and moved <= 1 and new.model_copy(update={"pools": old.pools}) == old


def write(source: Path, text: str) -> None:
    """Put `text` in place of the file, at once or not at all, with its rights. Raises Failed."""
    path = source.resolve()
    try:
        handle, name = tempfile.mkstemp(prefix=".tuned-", suffix=".yaml", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(path.stat().st_mode & 0o7777)
        Path(name).replace(path)
    except OSError as error:
        raise Failed(f"{source}: can't be written: {error.strerror or error}") from None
