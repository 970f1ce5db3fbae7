"""What would the controller do: the real window, policies and plan against a fleet that exists only as events."""

from fleet_controller.simulate.hosts import ServiceCurve
from fleet_controller.simulate.oracle import oracle
from fleet_controller.simulate.report import Oracle, Report, Turn
from fleet_controller.simulate.run import Setting, simulate, simulated
from fleet_controller.simulate.trace import Trace, TraceError, read_trace

__all__ = [
    "Oracle",
    "Report",
    "ServiceCurve",
    "Setting",
    "Trace",
    "TraceError",
    "Turn",
    "oracle",
    "read_trace",
    "simulate",
    "simulated",
]
