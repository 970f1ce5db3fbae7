"""Step rules: "FIELD OP NUMBER", held for a while, adds or removes servers.

As AWS step scaling with a warm-up: a rule adds to the servers that are *ready*, so that servers on their
way count towards the same step and a long start does not add again and again. Rules that remove take from
the wanted number. The grammar is StepRule.condition's.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

from fleet_controller.policies.decision import Look, Recommendation
from fleet_controller.policies.words import lasting, number, span
from fleet_controller.spec.scaling import StepRule

COMPARE: dict[str, Callable[[float, float], bool]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def recommend(rules: tuple[StepRule, ...], look: Look) -> list[Recommendation]:
    """One recommendation for each rule, in the order of the file."""
    return [_apply(f"steps[{index}]", rule, look) for index, rule in enumerate(rules)]


def _apply(name: str, rule: StepRule, look: Look) -> Recommendation:
    field, op, limit = rule.condition
    value: float | None = getattr(look.signal, field)
    if value is None:
        return Recommendation(policy=name, desired=None, reason=f"{field} is not known")
    holds = COMPARE[op](value, limit)
    held = look.timers.held(f"{name} {rule.when}", holds)
    if not holds:
        reason = f"{field} {number(value)}, waits for {op} {number(limit)}"
        return Recommendation(policy=name, desired=None, reason=reason)
    reason = f"{field} {number(value)} {op} {number(limit)}{lasting(held)}"
    if held < rule.for_:
        left = span(rule.for_ - held)
        return Recommendation(policy=name, desired=None, reason=f"{reason}, has to hold {left} more")
    if rule.add < 0:
        return Recommendation(policy=name, desired=max(1, look.current + rule.add), reason=reason)
    return Recommendation(policy=name, desired=max(look.current, look.signal.ready + rule.add), reason=reason)
