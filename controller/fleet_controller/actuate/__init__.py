"""Actuate: carry out steps on hosts, each in a thread of its own, recorded before and after its effect.

Start and stop are idempotent by the action's id: an action that a crash cut off is simply run again, and what it
already did is found on the host.
"""

from fleet_controller.actuate.actuator import Actuator
from fleet_controller.actuate.site import ASKED_STATES, Site, open_site

__all__ = ["ASKED_STATES", "Actuator", "Site", "open_site"]
