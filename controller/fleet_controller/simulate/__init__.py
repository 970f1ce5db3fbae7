"""What would the controller do: the real window, policies and plan against a fleet that exists only as events."""

from fleet_controller.simulate.hosts import ServiceCurve
from fleet_controller.simulate.report import Report, Turn
from fleet_controller.simulate.run import simulate
from fleet_controller.simulate.trace import Trace, TraceError, read_trace

__all__ = ["Report", "ServiceCurve", "Trace", "TraceError", "Turn", "read_trace", "simulate"]
