"""`fleetctl explain`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleetctl import picture
from fleetctl.commands.options import PoolName
from fleetctl.failure import USAGE, Failed
from fleetctl.fleet import Fleet
from fleetctl.moment import moment
from fleetctl.render import explain as render
from fleetctl.render.output import Form, Output, document, json_line
from fleetctl.render.terminal import show

if TYPE_CHECKING:
    from fleet_controller.journal import DecisionRecord, Journal

SCHEMA = "fleetctl/explain/v1"

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def explain(
    ctx: typer.Context,
    pool: PoolName = None,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="TIME", help='As it was then: 2026-03-02T08:00, 08:00 or "10m ago".'),
    ] = None,
    output: Output = Form.TABLE,
) -> None:
    """Why a pool has as many servers as it has: what each policy wanted, which one won, what held it back.

    With --at, the decision that was in force then and the one before it. With several pools and none named, JSON
    comes as one object a line.
    """
    with Fleet.to_read(ctx) as fleet:
        _explain(fleet, pool, at, output)


def _explain(fleet: Fleet, pool: str | None, at: str | None, output: Form) -> None:
    names = [fleet.spec.pool(pool).name] if pool else [p.name for p in fleet.spec.pools]
    now = time.time()
    then = None if at is None else _then(at, now)
    with fleet.history() as journal:
        if then is not None:
            told = [_replay(name, then, journal) for name in names]
        else:
            seen = picture.take(fleet, journal, now)
            pools = {p["name"]: p for p in seen["pools"]}
            told = [_explanation(name, fleet, pools.get(name) or {}) for name in names]
            if config := seen["controller"].get("config"):
                told = [{**value, "diagnosis": [*value["diagnosis"], config]} for value in told]
    if then is None and any(value["at"] is not None for value in told) and not fleet.controller_runs():
        typer.echo("the controller is not running; this is what it last said", err=True)
    if output is Form.TABLE:
        for value in told:
            show(*(render.parts(value, now) if then is None else render.replayed(value, now)))
    elif output is Form.JSON and len(told) > 1:
        for value in told:
            typer.echo(json_line(value))
    else:
        for value in told:
            typer.echo(document(value, output))


def _then(text: str, now: float) -> float:
    try:
        return moment(text, now)
    except ValueError as error:
        raise Failed(f"--at: {error}", USAGE) from None


def _explanation(name: str, fleet: Fleet, seen: Mapping[str, Any]) -> dict[str, Any]:
    decision = seen.get("last_decision") or {}
    scaling = fleet.spec.pool(name).scaling
    return {
        **_decided(name, decision),
        "desired": decision.get("desired", seen.get("desired")),
        "ready": seen.get("ready"),
        "bounds": decision.get("bounds") or {"low": scaling.min_servers, "high": scaling.max_servers},
        "at": decision.get("at"),
        "paused": bool(seen.get("paused", False)),
        "cooldown_remaining_s": seen.get("cooldown_remaining_s"),
        "diagnosis": seen.get("diagnosis") or [],
    }


def _replay(name: str, then: float, journal: Journal | None) -> dict[str, Any]:
    """What the journal says of `then`. `at`: when it was decided; `until`: when that was last seen to hold."""
    found = journal.decisions(name, then) if journal is not None else []
    record = found[0] if found else None
    decision = record.told if record is not None else {}
    signal = decision.get("signal") or {}
    return {
        **_decided(name, decision),
        "desired": decision.get("desired"),
        "ready": signal.get("ready"),
        "bounds": decision.get("bounds"),
        "at": record.at if record is not None else None,
        "until": record.until if record is not None else None,
        "asked_at": then,
        "signal": signal,
        "diagnosis": decision.get("diagnosis") or [],
        "before": _before(found[1]) if len(found) > 1 else None,
    }


def _decided(name: str, decision: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "pool": name,
        "desired": None,
        "ready": None,
        "bounds": None,
        "recommendations": decision.get("recommendations") or [],
        "winner": decision.get("winner"),
        "blocked_by": decision.get("blocked_by") or [],
        "reason": decision.get("reason"),
    }


def _before(record: DecisionRecord) -> dict[str, Any]:
    wanted = ("desired", "reason", "winner", "blocked_by")
    return {"at": record.at, "until": record.until, **{key: record.told.get(key) for key in wanted}}
