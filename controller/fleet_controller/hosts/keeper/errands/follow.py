"""Errand: the end of the agent's log, or what was added to it since; waits for that a while."""

from __future__ import annotations

import json
import time
from typing import Any

from fleet_controller.hosts.keeper.elevation import elevation_of
from fleet_controller.hosts.keeper.listening import Listener
from fleet_controller.hosts.keeper.logs import log_of
from fleet_controller.hosts.keeper.place import Place

PAUSE_S = 0.2
ANSWER_LIMIT = 1024 * 1024


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """`cursor` None: the last `lines` lines, of the last `since_s` seconds where set. Else what is behind it."""
    log = log_of(Place(args), elevation_of(args))
    lost = False
    if args["cursor"] is None:
        lines, cursor = log.end(args["lines"])
        if args["since_s"] is not None:
            lines = since(lines, stamp(time.time() - args["since_s"]))
    else:
        listener = Listener()
        until = time.monotonic() + args["wait_s"]
        while True:
            lines, cursor, lost = log.after(args["cursor"])
            if lines or lost or time.monotonic() >= until or listener.gone_within(PAUSE_S):
                break
    while len(json.dumps(lines)) > ANSWER_LIMIT:
        lines = lines[len(lines) // 4 + 1 :]
    return {"lines": lines, "cursor": cursor, "lost": lost, "utc_offset_s": time.localtime().tm_gmtoff}


def stamp(at: float) -> str:
    """As the agent writes it: this host's own clock and zone."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at))


def since(lines: list[str], earliest: str) -> list[str]:
    """The lines that were written since then. One that has no time of its own belongs to the one before it."""
    kept = []
    late = False
    for line in lines:
        try:
            at = json.loads(line).get("at") if line.startswith("{") else None
        except (ValueError, AttributeError):
            at = None
        if isinstance(at, str):
            late = at >= earliest
        if late:
            kept.append(line)
    return kept
