"""fleet.yaml -> FleetSpec."""

from fleet_controller.spec.address import Endpoint, endpoint
from fleet_controller.spec.balancer import (
    AccessLogSpec,
    BalancerSpec,
    LimitsSpec,
    QueueSpec,
    TimeoutsSpec,
    TlsSpec,
)
from fleet_controller.spec.fleet import TIERS, ControllerSpec, FleetSpec, PoolSpec, UnknownName
from fleet_controller.spec.host import AgentSpec, HostSpec, InstallSpec, SshSpec
from fleet_controller.spec.loading import load
from fleet_controller.spec.model import Batching, ModelSpec
from fleet_controller.spec.policy import load_scaling
from fleet_controller.spec.power import PowerSpec
from fleet_controller.spec.problem import Problem, SpecError
from fleet_controller.spec.scaling import (
    Condition,
    Cooldown,
    Idle,
    LatencyTarget,
    Predictive,
    QueueTarget,
    ScalingSpec,
    Stabilization,
    StepRule,
    condition,
)
from fleet_controller.spec.schedule import Schedule
from fleet_controller.spec.schema import json_schema
from fleet_controller.spec.template import init_files, init_text
from fleet_controller.spec.traffic import EjectionSpec, TrafficSpec

__all__ = [
    "TIERS",
    "AccessLogSpec",
    "AgentSpec",
    "BalancerSpec",
    "Batching",
    "Condition",
    "ControllerSpec",
    "Cooldown",
    "EjectionSpec",
    "Endpoint",
    "FleetSpec",
    "HostSpec",
    "Idle",
    "InstallSpec",
    "LatencyTarget",
    "LimitsSpec",
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
    "TimeoutsSpec",
    "TlsSpec",
    "TrafficSpec",
    "UnknownName",
    "condition",
    "endpoint",
    "init_files",
    "init_text",
    "json_schema",
    "load",
    "load_scaling",
]
