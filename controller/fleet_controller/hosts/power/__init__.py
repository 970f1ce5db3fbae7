"""Switching machines on and off, and seeing that it is so.

One driver a file says how a machine's state is read and what switches it; switch.py alone decides when that is done:
the state is read first, nothing is ordered twice, and what was ordered is watched until it is so or the time is up.
"""

from fleet_controller.hosts.power.choice import make_power
from fleet_controller.hosts.power.none import NoPower
from fleet_controller.hosts.power.state import Level, Power, Reading
from fleet_controller.hosts.power.switch import Switch

__all__ = ["Level", "NoPower", "Power", "Reading", "Switch", "make_power"]
