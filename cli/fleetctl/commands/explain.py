"""`fleetctl explain`."""

from __future__ import annotations

import time
from typing import Any

import typer

from fleetctl import picture
from fleetctl.commands.options import PoolName
from fleetctl.fleet import Fleet
from fleetctl.render.explain import parts
from fleetctl.render.output import Form, Output, document, json_line
from fleetctl.render.terminal import show

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command()
def explain(ctx: typer.Context, pool: PoolName = None, output: Output = Form.TABLE) -> None:
    """Why a pool has as many servers as it has: what each policy wanted, which one won, what held it back.

    With several pools and none named, JSON comes as one object a line.
    """
    fleet = Fleet.of(ctx)
    names = [fleet.spec.pool(pool).name] if pool else [p.name for p in fleet.spec.pools]
    with fleet.history() as journal:
        now = time.time()
        pools = {p["name"]: p for p in picture.take(fleet, journal, now)["pools"]}
    told = [_explanation(name, fleet, pools.get(name) or {}) for name in names]
    if output is Form.TABLE:
        for value in told:
            show(*parts(value, now))
    elif output is Form.JSON and len(told) > 1:
        for value in told:
            typer.echo(json_line(value))
    else:
        for value in told:
            typer.echo(document(value, output))


def _explanation(name: str, fleet: Fleet, seen: dict[str, Any]) -> dict[str, Any]:
    decision = seen.get("last_decision") or {}
    scaling = fleet.spec.pool(name).scaling
    return {
        "schema": "fleetctl/explain/v1",
        "pool": name,
        "desired": decision.get("desired", seen.get("desired")),
        "ready": seen.get("ready"),
        "bounds": decision.get("bounds") or {"low": scaling.min_servers, "high": scaling.max_servers},
        "recommendations": decision.get("recommendations") or [],
        "winner": decision.get("winner"),
        "blocked_by": decision.get("blocked_by") or [],
        "reason": decision.get("reason"),
        "at": decision.get("at"),
        "paused": bool(seen.get("paused", False)),
        "cooldown_remaining_s": seen.get("cooldown_remaining_s"),
    }
