"""The `scaling:` block of a pool: bounds, targets and calm."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from fleet_controller.spec.duration import Duration


class Part(BaseModel):
    """A block of fleet.yaml: unknown keys are errors, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class LatencyTarget(Part):
    """Keep the latency percentile (50..99.9) measured at the balancer under `target_ms`, over `window`."""

    percentile: float = Field(default=95, gt=0, lt=100)
    target_ms: float = Field(gt=0)
    window: Duration = 60.0


class QueueTarget(Part):
    target_per_server: float = Field(gt=0)


class StepRule(Part):
    """`when` is "SIGNAL OP NUMBER" over the Signal's fields; after holding `for`, add (or remove) servers."""

    when: str
    for_: Duration = Field(default=0.0, alias="for")
    add: int


class Schedule(Part):
    """From each time that `cron` names until the next schedule of the pool fires, these bounds hold."""

    cron: str
    timezone: str = "UTC"
    min_servers: int | None = Field(default=None, ge=0)
    max_servers: int | None = Field(default=None, ge=0)
    servers: int | None = Field(default=None, ge=0)
    duration: Duration | None = None


class Predictive(Part):
    enabled: bool = False


class Cooldown(Part):
    scale_up: Duration = 30.0
    scale_down: Duration = 300.0


class Stabilization(Part):
    scale_up: Duration = 0.0
    scale_down: Duration = 300.0


class Idle(Part):
    scale_to_zero: bool = False
    after: Duration = 600.0


class ScalingSpec(Part):
    """How many servers a pool runs. `target_utilization` is a share, 0..1."""

    min_servers: int = Field(default=1, ge=0)
    max_servers: int = Field(default=1, ge=0)
    latency: LatencyTarget | None = None
    target_utilization: float | None = Field(default=None, gt=0, le=1)
    queue: QueueTarget | None = None
    steps: tuple[StepRule, ...] = ()
    schedules: tuple[Schedule, ...] = ()
    predictive: Predictive = Predictive()
    cooldown: Cooldown = Cooldown()
    stabilization: Stabilization = Stabilization()
    idle: Idle = Idle()
