"""The `scaling:` block of a pool: bounds, targets and calm."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal, NamedTuple, cast

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from fleet_controller.spec.dates import Days
from fleet_controller.spec.duration import Duration, PositiveDuration
from fleet_controller.spec.part import Part
from fleet_controller.spec.schedule import Schedule
from fleet_controller.spec.share import share

SIGNALS = (
    "ready", "starting", "rps", "arrivals_per_s", "in_flight", "queued", "utilization",
    "p50_ms", "p95_ms", "p99_ms", "completed", "errors",
)  # fmt: skip
"""The fields of the Signal that a step's `when` may name."""

Comparison = Literal[">", ">=", "<", "<="]
_WHEN = re.compile(r"\s*(\S+?)\s*(>=|<=|==?|!=|>|<)\s*(\S+)\s*", re.ASCII)


class Condition(NamedTuple):
    """`when` in parts: `field` of the Signal, compared with `number`."""

    field: str
    op: Comparison
    number: float


def condition(when: str) -> Condition:
    """`when` ("p95_ms > 400") in parts. Raises ValueError with what to write instead."""
    found = _WHEN.fullmatch(when)
    if not found:
        raise ValueError(f'"{when[:60]}" is not a condition; write "FIELD OP NUMBER", as "p95_ms > 400"')
    field, op, written = found.groups()
    if field not in SIGNALS:
        near = difflib.get_close_matches(field, SIGNALS, 1, 0.5)
        hint = f'did you mean "{near[0]}"?' if near else f"known are {', '.join(SIGNALS)}"
        raise ValueError(f'"{field[:40]}" is not a field to compare; {hint}')
    if op not in (">", ">=", "<", "<="):
        raise ValueError(f'"{op}" cannot be used here; use one of > >= < <=')
    try:
        number = float(written)
        if number != number or number in (float("inf"), float("-inf")):
            raise ValueError
    except ValueError:
        unit = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|%)", written)
        hint = 'write "FIELD OP NUMBER", as "p95_ms > 400"'
        if unit:
            plain = {"ms": 1.0, "s": 1000.0, "%": 0.01}[unit[2]] * float(unit[1])
            hint = f'numbers have no unit; did you mean "{field} {op} {plain:g}"?'
        raise ValueError(f'"{written[:40]}" is not a number; {hint}') from None
    if field == "utilization" and 1 < number <= 100:
        raise ValueError(
            f'utilization is a share between 0 and 1; did you mean "utilization {op} {number / 100:g}"?'
        )
    return Condition(field, cast(Comparison, op), number)


def _when(value: str) -> str:
    condition(value)
    return value


def _percentile(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"[pP]?\d+(\.\d+)?%?", value):
        raise ValueError(f'"{value}" is not a number; did you mean {value.strip("pP%")}?')
    if isinstance(value, int | float) and not isinstance(value, bool) and not 50 <= value <= 99.9:
        meant = f"; did you mean {value * 100:g}?" if 0.5 <= value < 1 else ""
        raise ValueError(f"{value} is not a percentile between 50 and 99.9{meant}")
    return value


def _not_zero(value: int) -> int:
    if value == 0:
        raise ValueError("0 changes nothing; write how many servers to add (negative to remove)")
    return value


class LatencyTarget(Part):
    """Keep the latency percentile (50..99.9) measured at the balancer under `target_ms`, over `window`."""

    percentile: Annotated[float, BeforeValidator(_percentile)] = Field(
        default=95,
        ge=50,
        le=99.9,
        description="Which percentile of latency is kept under the target (50..99.9).",
    )
    target_ms: float = Field(gt=0, description="Milliseconds that the percentile stays under.")
    window: PositiveDuration = Field(default=60.0, description="How far back requests count.")


class QueueTarget(Part):
    """Add servers when more requests wait than the servers should have waiting."""

    target_per_server: float = Field(gt=0, description="Waiting requests that one ready server may have.")


class StepRule(Part):
    """`when` is "FIELD OP NUMBER" over the Signal's fields; after holding `for`, add (or remove) servers."""

    when: Annotated[str, AfterValidator(_when)] = Field(
        description='Condition "FIELD OP NUMBER", as "p95_ms > 400". Fields: ' + ", ".join(SIGNALS) + "."
    )
    for_: Duration = Field(default=0.0, alias="for", description="How long the condition must hold first.")
    add: Annotated[int, AfterValidator(_not_zero)] = Field(
        description="Servers to add (negative: to remove)."
    )

    @property
    def condition(self) -> Condition:
        return condition(self.when)


class Predictive(Part):
    """Start servers before the load that recent days lead to expect."""

    enabled: bool | None = Field(
        default=None, description="Scale ahead of expected load; without it: where there is a latency target."
    )


class Cooldown(Part):
    """Pauses between changes: growing waits for the last growth, shrinking for any change."""

    scale_up: Duration = Field(default=30.0, description="Pause after servers were added, before more are.")
    scale_down: Duration = Field(
        default=300.0, description="Pause after any change, before servers are removed."
    )


class Stabilization(Part):
    """How far back recommendations count: the largest of them going down, the least going up."""

    scale_up: Duration = Field(default=0.0, description="Window before servers are added.")
    scale_down: Duration | None = Field(
        default=None,
        description="Window before servers are removed; without it: 5m, or as far as a forecast looks ahead.",
    )


class ChangeLimit(Part):
    """At most so many servers within a time; of both numbers the larger counts."""

    servers: int | None = Field(default=None, ge=1, description="So many servers.")
    percent: float | None = Field(
        default=None, gt=0, le=10_000, description="Such a share of what ran when the time began, in percent."
    )
    per: PositiveDuration = Field(default=60.0, description="The time within which they count.")

    @model_validator(mode="after")
    def _limits_something(self) -> ChangeLimit:
        if self.servers is None and self.percent is None:
            raise ValueError("limits nothing; give it servers or percent")
        return self


class Limits(Part):
    """How fast policies may change the number. Bounds, schedules and people are not held back."""

    scale_up: ChangeLimit | None = Field(default=None, description="Adding servers; without it: no limit.")
    scale_down: ChangeLimit | None = Field(
        default=None, description="Removing servers; without it: no limit."
    )


class Panic(Part):
    """A surge that the ready servers can't carry is answered without waiting. For pools with target_utilization or
    queue and without a forecast, which waits for nothing anyway.
    """

    enabled: bool = Field(default=True, description="Whether a surge is answered at once.")
    threshold: float = Field(
        default=2.0, gt=1, le=1000, description="How many times the ready servers the load must need."
    )
    window: PositiveDuration = Field(
        default=60.0, description="How long after the last moment of panic no server is removed."
    )


class Idle(Part):
    """What happens when nobody asks for anything."""

    scale_to_zero: bool = Field(
        default=False,
        description="Remove the last server too; requests wait for a start. Needs min_servers: 0.",
    )
    after: Duration = Field(default=600.0, description="How long without a request counts as idle.")


class ScalingSpec(Part):
    """How many servers a pool runs. `target_utilization` is a share, 0..1."""

    min_servers: int = Field(default=1, ge=0, description="Never fewer ready servers than this.")
    max_servers: int = Field(default=1, ge=0, description="Never more servers than this.")
    latency: LatencyTarget | None = Field(default=None, description="Latency promise that decides the size.")
    target_utilization: Annotated[float | None, BeforeValidator(share)] = Field(
        default=None, gt=0, le=1, description="Share of time (0..1) that the devices should be busy."
    )
    queue: QueueTarget | None = Field(default=None, description="Waiting requests that decide the size.")
    tolerance: Annotated[float, BeforeValidator(share)] = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="How far (0..1) utilization and queue may be off target before the number changes.",
    )
    steps: tuple[StepRule, ...] = Field(
        default=(), description="Rules for the unusual: if this, add that many."
    )
    schedules: tuple[Schedule, ...] = Field(default=(), description="Other bounds at certain times.")
    holidays: Days = Field(
        default=(),
        description="Days that schedules call holidays: 2026-12-25, or 12-25 for every year; "
        "without it: those at the top of the file.",
    )
    predictive: Predictive = Field(default=Predictive(), description="Scaling ahead of expected load.")
    cooldown: Cooldown = Field(default=Cooldown(), description="Pauses between changes.")
    stabilization: Stabilization = Field(default=Stabilization(), description="Calm before changes.")
    limits: Limits = Field(default=Limits(), description="The most change within a time.")
    panic: Panic = Field(default=Panic(), description="Answering surges at once.")
    idle: Idle = Field(default=Idle(), description="Scaling to zero.")
