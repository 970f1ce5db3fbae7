"""Chronicle: which decisions are worth a row. PURE.

A pool decides every few seconds and mostly the same. A row is written at once when something was decided otherwise,
for another reason or against another obstacle; when only the figures moved, once a minute; and when nothing did, the
row that stands says that it still holds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from fleet_controller.policies import Decision
from fleet_controller.records import DecisionRecord
from fleet_controller.window import Signal

MINUTE_S = 60.0
_FIGURE = re.compile(r"\d[\d.,]*")


class Chronicle:
    """One pool's decisions, as far as they were written."""

    def __init__(self, pool: str) -> None:
        self._pool = pool
        self._kept: DecisionRecord | None = None

    def note(self, now: float, told: Mapping[str, Any]) -> DecisionRecord | None:
        """The row to write for what was decided at `now` (see `inputs`); None: nothing worth one."""
        kept = self._kept
        fresh = DecisionRecord(self._pool, now, now, dict(told))
        if kept is not None and now >= kept.at and _gist(kept.told) == _gist(told):
            if 0 <= now - kept.until < MINUTE_S:
                return None
            if _words(kept.told) == _words(told):
                fresh = DecisionRecord(self._pool, kept.at, now, kept.told)
        self._kept = fresh
        return fresh


def inputs(
    decision: Decision, signal: Signal, state: Mapping[str, Any], diagnosis: tuple[str, ...]
) -> dict[str, Any]:
    """A decision and what led to it, as JSON: what is not known is left out, figures have four digits.

    `state` is the PolicyState as JSON.
    """
    remembered = {key: state.get(key) for key in ("operator", "last_up_at", "last_down_at", "idle_since")}
    return {
        **decision.model_dump(mode="json"),
        "signal": {k: _short(v) for k, v in signal.model_dump(mode="json", exclude_none=True).items()},
        "state": {key: value for key, value in remembered.items() if value is not None},
        "diagnosis": list(diagnosis),
    }


def _short(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _gist(told: Mapping[str, Any]) -> tuple[object, ...]:
    """What makes it another decision: all but the figures in the sentences."""
    wants = tuple((r["policy"], r["desired"]) for r in told["recommendations"])
    blocked = tuple(_FIGURE.sub("0", obstacle) for obstacle in told["blocked_by"])
    return told["desired"], told["winner"], wants, blocked, tuple(told["bounds"].items())


def _words(told: Mapping[str, Any]) -> tuple[object, ...]:
    return told["reason"], told["recommendations"], told["blocked_by"], told["diagnosis"]
