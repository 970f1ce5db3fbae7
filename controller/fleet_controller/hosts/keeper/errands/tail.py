"""Errand: the last lines of the agent's log."""

from __future__ import annotations

import json
from typing import Any

from fleet_controller.hosts.keeper.logs import TAIL_LIMIT, text_tail
from fleet_controller.hosts.keeper.place import Place


def errand(args: dict[str, Any]) -> dict[str, Any]:
    place = Place(args)
    text = text_tail(place.log, args["lines"])
    missing = args["lines"] - len(text.splitlines())
    if missing > 0:
        text = "\n".join(part for part in (text_tail(place.log + ".1", missing), text) if part)
    while len(json.dumps(text)) > TAIL_LIMIT:
        text = text[len(text) // 4 + 1 :]
    return {"text": text}
