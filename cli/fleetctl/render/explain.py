"""An explanation for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from fleetctl.render.terminal import grid
from fleetctl.render.text import age, clock, line

# A decision that holds is confirmed once a minute; after this long nobody was there to take it.
SILENCE_S = 150.0


def parts(told: Mapping[str, Any], now: float) -> list[Table | Text | str]:
    """The sentence first, then what a person should know, then who wanted what and what stood in the way."""
    pool = line(told["pool"])
    if told["at"] is None:
        return [f"pool {pool}: nothing has been decided yet", *_diagnosis(told)]
    page: list[Table | Text | str] = [
        f"pool {pool}: {told['desired']} wanted, {told['ready']} ready",
        f"decided {age(now - told['at'])} ago: {line(told['reason'])}",
        f"bounds: {_bounds(told)}",
    ]
    if told["paused"] and not told["diagnosis"]:
        page.append(f"autoscaling is paused; go on with: fleetctl autoscale resume {pool}")
    if told["cooldown_remaining_s"]:
        page.append(f"cooling down for another {age(told['cooldown_remaining_s'])}")
    return page + _reasons(told)


def replayed(told: Mapping[str, Any], now: float) -> list[Table | Text | str]:
    """The decision that was in force at a moment, what it rested on, and the one before it."""
    pool, then = line(told["pool"]), told["asked_at"]
    if told["at"] is None:
        return [f"pool {pool}: no decision from {clock(then)} or before is in the journal"]
    page: list[Table | Text | str] = [
        f"pool {pool} at {clock(then)}, {age(now - then)} ago: {told['desired']} wanted, {line(told['ready'])} ready",
        f"decided {age(then - told['at'])} before, at {clock(told['at'])}: {line(told['reason'])}",
    ]
    if then - told["until"] > SILENCE_S:
        page.append(
            f"nothing was decided from {clock(told['until'])} on: the controller did not run or was blocked"
        )
    page.append(f"bounds: {_bounds(told)}")
    figures = (f"{line(key)} {value:g}" for key, value in told["signal"].items())
    page.append(f"seen: {', '.join(figures)}")
    page += _reasons(told)
    before = told["before"]
    if before is not None:
        lasted = age(told["at"] - before["at"])
        page.append(f"before that, for {lasted}: {before['desired']} wanted: {line(before['reason'])}")
    return page


def _bounds(told: Mapping[str, Any]) -> str:
    bounds = told["bounds"] or {}
    return f"{bounds.get('low')}..{bounds.get('high')}"


def _diagnosis(told: Mapping[str, Any]) -> list[str]:
    return [f"- {line(sentence)}" for sentence in told["diagnosis"]]


def _reasons(told: Mapping[str, Any]) -> list[Table | Text | str]:
    page: list[Table | Text | str] = [f"held back by: {line(obstacle)}" for obstacle in told["blocked_by"]]
    page += _diagnosis(told)
    if told["recommendations"]:
        rows = (
            (
                Text(line(r.get("policy")), style="bold" if r.get("policy") == told["winner"] else ""),
                r.get("desired"),
                r.get("reason"),
            )
            for r in told["recommendations"]
        )
        page += ["", grid(("POLICY", "WANTS", "WHY"), rows)]
    if told["winner"]:
        page.append(f"decided by: {line(told['winner'])}")
    return page
