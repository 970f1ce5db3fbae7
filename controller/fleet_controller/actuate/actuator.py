"""Actuator: a thread for each host that is worked on, never two for one host."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from fleet_controller.actuate.hands import POLL_S, Hands, retry_delay_s, words
from fleet_controller.actuate.inspection import Inspector
from fleet_controller.actuate.site import Site
from fleet_controller.actuate.start import start
from fleet_controller.actuate.stop import stop
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.journal import Action, Busy
from fleet_controller.lifecycle import HostState, IllegalMove
from fleet_controller.plan import Step

log = logging.getLogger(__name__)

Spawn = Callable[[str, Callable[[], None]], None]


def in_thread(name: str, work: Callable[[], None]) -> None:
    """Have `work` done in a thread that does not keep the process alive."""
    threading.Thread(target=work, name=name, daemon=True).start()


class Actuator:
    """Runs steps. What it begins is in the journal first, and what it can't begin now comes again at the next tick."""

    def __init__(self, hands: Hands, spawn: Spawn) -> None:
        """`spawn` has a piece of work done beside the loop, under a name."""
        self._hands = hands
        self._spawn_beside = spawn
        self._inspector = Inspector(hands)
        self._running: set[str] = set()
        self._lock = threading.Lock()

    def busy(self) -> frozenset[str]:
        """Hosts that a thread is working on."""
        with self._lock:
            return frozenset(self._running)

    def heard(self, hosts: Iterable[str]) -> None:
        """Whose agents answered in the last look."""
        self._inspector.heard(hosts)

    def submit(self, step: Step, site: Site) -> bool:
        """Begin a step; False when the host is busy or as many hosts as allowed are worked on."""
        if not self._free(step.host, site):
            return False
        if step.kind == "inspect":
            self._spawn(step.host, lambda: self._inspector.inspect(step.host, site))
            return True
        state = HostState.BOOTING if step.kind == "start" else HostState.DRAINING
        try:
            action = self._hands.journal.begin(
                step.host, step.kind, step.pool, step.reason, self._hands.clock.now(), state
            )
        except (Busy, IllegalMove):  # the host changed since the plan was made; the next one sees it as it is
            return False
        self._spawn(step.host, lambda: self._run(action, site))
        return True

    def resume(self, site: Site) -> None:
        """Take up again the actions that nobody works on: left open by an earlier run, or by a journal that failed."""
        for action in self._hands.journal.open_actions():
            if self._free(action.host, site):
                self._spawn(action.host, lambda action=action: self._run_open(action, site))  # type: ignore[misc]

    def wait(self, timeout_s: float) -> bool:
        """Wait for every thread; False when some still run."""
        deadline = self._hands.clock.monotonic() + timeout_s
        while self.busy() and self._hands.clock.monotonic() < deadline:
            self._hands.clock.sleep(POLL_S)
        return not self.busy()

    def _free(self, host: str, site: Site) -> bool:
        with self._lock:
            return host not in self._running and len(self._running) < site.spec.controller.parallel

    def _spawn(self, host: str, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            finally:
                with self._lock:
                    self._running.discard(host)
                self._hands.on_change()

        with self._lock:
            self._running.add(host)
        self._spawn_beside(f"act-{host}", run)

    def _run_open(self, action: Action, site: Site) -> None:
        if (
            action in self._hands.journal.open_actions()
        ):  # its thread may have ended it just before this one began
            self._run(action, site)

    def _run(self, action: Action, site: Site) -> None:
        try:
            (start if action.kind == "start" else stop)(action, site, self._hands)
        except (
            Exception
        ) as error:  # one host's trouble, a bug of ours included, must not take the others down
            if not isinstance(error, HostFailure):
                log.exception("%s of %s", action.kind, action.host)
            self._fail(action, error, site)

    def _fail(self, action: Action, error: Exception, site: Site) -> None:
        """Close a failed action; after a failed start, see to it that nothing half-started is left."""
        record, text = self._hands.record(action.host), words(error, action.host)
        unreachable = isinstance(error, HostFailure) and error.unreachable
        changes: dict[str, object] = {}
        if action.kind == "start" and record.action_id is not None and not unreachable:
            try:
                site.machines.machine(action.host).stop(grace_s=0.0)
                changes = {"action_id": None, "agent_port": None}
            except (
                Exception
            ) as left:  # whatever it is, the action must be closed, or its host stays busy for ever
                text = f"{text} Besides, {words(left, action.host)}"
        self._hands.journal.conclude(
            action,
            HostState.UNREACHABLE if unreachable else HostState.FAILED,
            f"{action.kind} failed",
            self._hands.clock.now(),
            error=text,
            failures=record.failures + 1,
            retry_at=self._hands.clock.now() + retry_delay_s(record.failures + 1),
            **changes,
        )
