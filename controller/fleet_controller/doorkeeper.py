"""Doorkeeper: keeps the balancer alive, and keeps it told which hosts may get requests."""

from __future__ import annotations

import time

from fleet_controller import daemons
from fleet_controller.frontdoor import FrontDoor, FrontDoorError
from fleet_controller.journal import Journal
from fleet_controller.spec import FleetSpec
from fleet_controller.statefolder import StateFolder
from fleet_wire.balancer import BackendList, BalancerStatus

# How long a balancer that answers nothing may take to end before it is killed.
HUNG_GRACE_S = 2.0


class Doorkeeper:
    """The controller's care for one balancer. Its addresses don't change while the fleet runs."""

    def __init__(self, spec: FleetSpec, folder: StateFolder, journal: Journal) -> None:
        self._spec = spec
        self._daemon = daemons.balancer(spec, folder)
        self._journal = journal
        self.door = FrontDoor(self._admin, folder.token("balancer"))
        self._sent: tuple[BackendList, float] | None = None
        self._silent_since: float | None = None
        self._complained = False
        self._refused = ""

    @property
    def endpoint(self) -> str:
        """Where clients send their requests."""
        return f"http://{self._daemon.ready().get('listen', self._spec.balancer.listen)}"

    def _admin(self) -> str:
        return str(self._daemon.ready().get("admin", self._spec.balancer.admin))

    def heard(self, status: BalancerStatus | None) -> None:
        """Note whether it answered at the last look."""
        if status is not None:
            self._silent_since = None
        elif self._silent_since is None:
            self._silent_since = time.monotonic()

    def tend(self, now: float, patience_s: float) -> None:
        """Start the balancer again when it is gone, or has answered nothing for `patience_s`."""
        try:
            if self._silent_since is not None and time.monotonic() - self._silent_since > patience_s:
                self._silent_since = None
                if self._daemon.stop(HUNG_GRACE_S):
                    text = f"the balancer did not answer for {patience_s:.0f} s and was stopped"
                    self._journal.record(now, "balancer", text)
            if self._daemon.ensure():
                self._silent_since = None
                self._journal.record(now, "balancer", "the balancer was started")
            self._complained = False
        except daemons.DaemonError as error:
            if not self._complained:
                self._journal.record(now, "balancer", str(error))
            self._complained = True

    def tell(self, wanted: BackendList, status: BalancerStatus | None) -> None:
        """Give it the backends, unless this very process has them already. Not asked twice while it is silent."""
        started_at = status.started_at if status else 0.0
        if self._sent == (wanted, started_at) or self._silent_since is not None:
            return
        try:
            self.door.put(wanted)
            self._sent, self._refused = (wanted, started_at), ""
        except FrontDoorError as error:
            self._sent = None
            if str(error) != self._refused:  # once, not at every tick
                self._refused = str(error)
                self._journal.record(time.time(), "balancer", f"the hosts could not be told to it: {error}")
