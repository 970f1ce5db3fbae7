"""The fleet as last known: what the controller wrote at its last tick, corrected by what is true now."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fleetctl.fleet import Fleet

if TYPE_CHECKING:
    from fleet_controller.journal import Journal

SCHEMA = "fleetctl/status/v1"


def take(fleet: Fleet, journal: Journal | None, now: float) -> dict[str, Any]:
    """`fleetctl status -o json`. Empty pools and hosts where the fleet was never started.

    A controller that is not running says nothing new: `controller.running` is looked up, and `last_tick_age_s` and
    each host's `since_s` are counted up to `now` (Unix seconds).
    """
    status = (journal.status() if journal is not None else None) or {}
    at = status.get("at")
    elapsed = max(0.0, now - at) if at is not None else 0.0
    before = status.get("controller") or {}
    running = fleet.controller_runs()
    picture: dict[str, Any] = {
        "schema": SCHEMA,
        "fleet": fleet.spec.fleet,
        "endpoint": status.get("endpoint") if running or status.get("goal") == "up" else None,
        "controller": before
        | {
            "running": running,
            "leader": bool(before.get("leader", False)) and running,
            "last_tick_age_s": round(elapsed, 3) if at is not None else None,
            "paused": bool(before.get("paused", False)),
        },
        "pools": status.get("pools") or [],
        "hosts": [_aged(host, elapsed) for host in status.get("hosts") or []],
    }
    picture |= {key: value for key, value in status.items() if key not in picture}
    picture.setdefault("goal", "down")
    picture.setdefault("at", None)
    return picture


def _aged(host: dict[str, Any], elapsed: float) -> dict[str, Any]:
    since = host.get("since_s")
    return host if since is None else host | {"since_s": round(since + elapsed, 3)}
