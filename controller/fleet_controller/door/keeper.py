"""Doorkeeper: keeps the balancer alive, and keeps it told which hosts may get requests."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable

from fleet_controller.clock import Clock
from fleet_controller.door import config as doorconfig
from fleet_controller.door import daemons
from fleet_controller.door.admin import FrontDoor, FrontDoorError
from fleet_controller.door.watch import DoorWatch
from fleet_controller.journal import Journal
from fleet_controller.spec import FleetSpec
from fleet_controller.statefolder import StateFolder
from fleet_wire.balancer import BackendList, BalancerStatus

# How long a balancer that answers nothing may take to end before it is killed.
HUNG_GRACE_S = 2.0
# By how much longer each time one is waited for that hangs again and again.
MOST_PATIENCE = 16.0


class Doorkeeper:
    """The controller's care for one balancer. What doorconfig.FIXED names doesn't change while it runs."""

    def __init__(self, spec: FleetSpec, folder: StateFolder, journal: Journal, clock: Clock) -> None:
        self._spec = spec
        self._folder = folder
        self._daemon = daemons.balancer(spec, folder)
        self._journal = journal
        self._clock = clock
        self.door = FrontDoor(self._admin, folder.token("balancer"))
        self._sent: tuple[BackendList, float] | None = None
        self._silent_since: float | None = None
        self._patience = 1.0
        self._complained = False
        self._refused = ""
        self._too_late: list[str] = []
        # The loop tends, and the watch revives, each in its own thread.
        self._starting = threading.Lock()

    def adopt(self, spec: FleetSpec) -> None:
        """Go on with another version of fleet.yaml; the next tend() tells the balancer."""
        self._spec = spec
        self._daemon = daemons.balancer(spec, self._folder)

    @property
    def endpoint(self) -> str:
        """Where clients send their requests."""
        scheme = "http" if self._spec.balancer.tls is None else "https"
        return f"{scheme}://{self._daemon.ready().get('listen', self._spec.balancer.listen)}"

    def _admin(self) -> str:
        return str(self._daemon.ready().get("admin", self._spec.balancer.admin))

    def heard(self, status: BalancerStatus | None) -> None:
        """Note whether it answered at the last look."""
        if status is not None:
            self._silent_since, self._patience = None, 1.0
        elif self._silent_since is None:
            self._silent_since = self._clock.monotonic()

    def watch(self, lost: Callable[[], None]) -> Callable[[], None]:
        """Have `lost` called, in another thread, the moment the balancer ends; what is returned ends the watch."""
        watch = DoorWatch(lambda: self._daemon.find(), lost)
        watch.start()
        return watch.stop

    def revive(self) -> None:
        """The balancer's process has ended: start it again at once. What goes wrong is seen and told by tend()."""
        with self._starting:
            begun = self._clock.monotonic()
            try:
                if self._daemon.ensure():
                    took_ms = (self._clock.monotonic() - begun) * 1000.0
                    text = f"the balancer ended, and was started again in {took_ms:.0f} ms"
                    self._journal.record(self._clock.now(), "balancer", text)
            except (daemons.DaemonError, OSError):
                pass

    def tend(self, now: float, patience_s: float) -> None:
        """Start the balancer again when it is gone, or has answered nothing for `patience_s`."""
        with self._starting:
            self._tend(now, patience_s)

    def _tend(self, now: float, patience_s: float) -> None:
        try:
            patience_s *= self._patience
            if self._silent_since is not None and self._clock.monotonic() - self._silent_since > patience_s:
                # if that does not help, it is not what hangs, and each start costs the requests in flight
                self._patience = min(MOST_PATIENCE, 2.0 * self._patience)
                self._silent_since = None
                if self._daemon.stop(HUNG_GRACE_S):
                    text = f"the balancer did not answer for {patience_s:.0f} s and was stopped"
                    self._journal.record(now, "balancer", text)
            if self._daemon.ensure():
                self._silent_since = None
                self._journal.record(now, "balancer", "the balancer was started")
            else:
                self._configure(now)
            self._complained = False
        except (daemons.DaemonError, OSError) as error:
            if not self._complained:
                self._journal.record(now, "balancer", str(error))
            self._complained = True

    def _configure(self, now: float) -> None:
        """Have a running balancer read its configuration again where fleet.yaml says something else by now."""
        wanted = doorconfig.config(self._spec, self._folder)
        known = doorconfig.read(self._folder)
        changed = doorconfig.differences(known, wanted)
        too_late = [name for name in changed if name in doorconfig.FIXED] if known is not None else []
        if too_late and too_late != self._too_late:
            names = " and ".join(f"balancer.{name}" for name in too_late)
            text = f"a change of {names} waits for the next start: `fleetctl down`, then `fleetctl up`"
            self._journal.record(now, "balancer", text)
        self._too_late = too_late
        if not changed or too_late:
            return
        doorconfig.write(wanted, self._folder)
        if self._daemon.signal(signal.SIGHUP):
            text = f"the balancer reads its configuration again: {', '.join(changed)} changed"
            self._journal.record(now, "balancer", text)

    def tell(self, wanted: BackendList, status: BalancerStatus | None) -> bool:
        """Give it the backends, unless this very process has them already; whether it has them now.

        Not asked twice while it is silent.
        """
        started_at = status.started_at if status else 0.0
        if self._sent == (wanted, started_at) and self._silent_since is None:
            return True
        if self._silent_since is not None:
            return False
        try:
            self.door.put(wanted)
            self._sent, self._refused = (wanted, started_at), ""
            return True
        except FrontDoorError as error:
            self._sent = None
            if str(error) != self._refused:  # once, not at every tick
                self._refused = str(error)
                self._journal.record(
                    self._clock.now(), "balancer", f"the hosts could not be told to it: {error}"
                )
            return False
