"""Step rules: "SIGNAL OP NUMBER", held for a while, adds or removes servers.

As AWS step scaling with a warm-up: a rule adds to the servers that are *ready*, so that servers on their
way count towards the same step and a long start does not add again and again. Rules that remove take from
the wanted number.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass

from fleet_controller.policies.decision import Look, Recommendation
from fleet_controller.policies.words import lasting, number, span
from fleet_controller.spec.scaling import StepRule
from fleet_controller.window import Signal

FIELDS = tuple(name for name in Signal.model_fields if name != "percentile_ms")
OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
}
_CONDITION = re.compile(r"\s*([a-z][a-z0-9_]*)\s*(>=|<=|==|!=|>|<)\s*([0-9]+(?:\.[0-9]+)?|\.[0-9]+)\s*")


@dataclass(frozen=True)
class Condition:
    """One comparison of a field of the Signal with a number."""

    field: str
    op: str
    limit: float

    def holds(self, signal: Signal) -> bool | None:
        """None: the signal does not know the field now."""
        value = self.value(signal)
        return None if value is None else OPERATORS[self.op](value, self.limit)

    def value(self, signal: Signal) -> float | None:
        value: float | None = getattr(signal, self.field)
        return value


def parse(text: str) -> Condition:
    """Raises ValueError that says what is wrong and what may stand there."""
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise ValueError(f'"{text}" is not a condition; write SIGNAL OP NUMBER, like "p95_ms > 400"')
    name, op, limit = match.groups()
    if name not in FIELDS:
        raise ValueError(f'"{name}" is not a signal; there are {", ".join(FIELDS)}')
    return Condition(name, op, float(limit))


def recommend(rules: tuple[StepRule, ...], look: Look) -> list[Recommendation]:
    """One recommendation for each rule, in the order of the file."""
    return [_apply(index, rule, look) for index, rule in enumerate(rules)]


def _apply(index: int, rule: StepRule, look: Look) -> Recommendation:
    condition = parse(rule.when)
    name, key = f"steps[{index}]", f"steps {index} {rule.when}"
    holds = condition.holds(look.signal)
    if holds is None:
        return Recommendation(policy=name, desired=None, reason=f"{condition.field} is not known")
    held = look.timers.held(key, holds)
    value = condition.value(look.signal)
    now = f"{condition.field} is {number(value)}" if value is not None and math.isfinite(value) else ""
    if not holds:
        return Recommendation(policy=name, desired=None, reason=f"{rule.when} does not hold: {now}")
    if held < rule.for_:
        left = span(rule.for_ - held)
        return Recommendation(
            policy=name, desired=None, reason=f"{rule.when} ({now}) has to hold {left} more"
        )
    reason = f"{rule.when} ({now}){lasting(held)}"
    if rule.add >= 0:
        return Recommendation(
            policy=name, desired=max(look.current, look.signal.ready + rule.add), reason=reason
        )
    return Recommendation(policy=name, desired=max(1, look.current + rule.add), reason=reason)
