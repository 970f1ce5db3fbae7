"""Errand: the last lines of the agent's log."""

from __future__ import annotations

import json
from typing import Any

from fleet_controller.hosts.keeper.elevation import elevation_of
from fleet_controller.hosts.keeper.logs import TAIL_LIMIT, log_of
from fleet_controller.hosts.keeper.place import Place


def errand(args: dict[str, Any]) -> dict[str, Any]:
    text = "\n".join(log_of(Place(args), elevation_of(args)).end(args["lines"])[0])
    while len(json.dumps(text)) > TAIL_LIMIT:
        text = text[len(text) // 4 + 1 :]
    return {"text": text}
