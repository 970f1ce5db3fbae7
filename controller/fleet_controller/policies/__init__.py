"""How many servers a pool should run: pure functions of spec, memory, signal and time."""

from fleet_controller.policies.calm import cooldown_remaining_s
from fleet_controller.policies.decide import STALE_AFTER_S, decide, has_policies, set_desired
from fleet_controller.policies.decision import Bounds, Decision, PolicyState, Recommendation
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import Signal

__all__ = [
    "STALE_AFTER_S",
    "Bounds",
    "Decision",
    "PolicyState",
    "Recommendation",
    "ScalingSpec",
    "Signal",
    "cooldown_remaining_s",
    "decide",
    "has_policies",
    "set_desired",
]
