"""fleet.yaml -> FleetSpec."""

from fleet_controller.spec.address import Endpoint, endpoint
from fleet_controller.spec.fleet import (
    BalancerSpec,
    ControllerSpec,
    FleetSpec,
    PoolSpec,
    QueueSpec,
    UnknownName,
)
from fleet_controller.spec.host import AgentSpec, HostSpec, InstallSpec, PowerSpec, SshSpec
from fleet_controller.spec.loading import load
from fleet_controller.spec.model import Batching, ModelSpec
from fleet_controller.spec.policy import load_scaling
from fleet_controller.spec.problem import Problem, SpecError
from fleet_controller.spec.scaling import (
    Condition,
    Cooldown,
    Idle,
    LatencyTarget,
    Predictive,
    QueueTarget,
    ScalingSpec,
    Schedule,
    Stabilization,
    StepRule,
    condition,
)
from fleet_controller.spec.schema import json_schema
from fleet_controller.spec.template import init_files, init_text

__all__ = [
    "AgentSpec",
    "BalancerSpec",
    "Batching",
    "Condition",
    "ControllerSpec",
    "Cooldown",
    "Endpoint",
    "FleetSpec",
    "HostSpec",
    "Idle",
    "InstallSpec",
    "LatencyTarget",
    "ModelSpec",
    "PoolSpec",
    "PowerSpec",
    "Predictive",
    "Problem",
    "QueueSpec",
    "QueueTarget",
    "ScalingSpec",
    "Schedule",
    "SpecError",
    "SshSpec",
    "Stabilization",
    "StepRule",
    "UnknownName",
    "condition",
    "endpoint",
    "init_files",
    "init_text",
    "json_schema",
    "load",
    "load_scaling",
]
