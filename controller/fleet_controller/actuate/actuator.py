"""Actuator: a thread for each host that is worked on, never two for one host."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from typing import Any

from fleet_controller.actuate.circuit import Circuits
from fleet_controller.actuate.hands import (
    HELD_S,
    LAST_LOOK_S,
    POLL_S,
    Hands,
    held,
    look_delay_s,
    retry_delay_s,
    told,
    told_held,
    words,
    work_on,
)
from fleet_controller.actuate.inspection import Inspector
from fleet_controller.actuate.site import Site
from fleet_controller.actuate.start import start
from fleet_controller.actuate.stop import stop
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.journal import Action, Busy, JournalError
from fleet_controller.lifecycle import QUARANTINE_AFTER, HostState, IllegalMove
from fleet_controller.plan import Step
from fleet_controller.pulse import ACTION_S
from fleet_wire.agent import AgentStatus

log = logging.getLogger(__name__)

Spawn = Callable[[str, Callable[[], None]], None]

# A host that has not answered for so long takes nobody's place: a rack that is dark must not hold up the others.
STUCK_S = 1.0
# So many may be waited for at once all the same: each is a thread.
MOST_ASIDE = 256


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
        self._waiting: dict[str, str] = {}
        self._circuits: Circuits | None = None
        self._counting = False

    def waiting(self) -> dict[str, str]:
        """Hosts that would be started and wait for others of their circuit, with the reason; since `plan_anew`."""
        return dict(self._waiting)

    def plan_anew(self, circuits: Circuits) -> None:
        """What is submitted from now on is another plan; no more is begun than the circuits bear."""
        self._waiting.clear()
        self._circuits = circuits

    def busy(self) -> frozenset[str]:
        """Hosts that a thread is working on."""
        with self._lock:
            return frozenset(self._running)

    def stuck(self, site: Site) -> frozenset[str]:
        """Those of `busy` that somebody tries to connect to, and has for STUCK_S: they do not count as worked on."""
        return frozenset(host for host in self.busy() if site.machines.reaching_s(host) > STUCK_S)

    def heard(self, answers: Mapping[str, AgentStatus], site: Site) -> None:
        """What agents answered in the last look. Who was started again is asked why, now or after the next look."""
        for host, status in self._inspector.heard(answers).items():
            if self._free(host, site):
                self._spawn(
                    host,
                    site,
                    lambda host=host, status=status: self._inspector.tell(host, status, site),  # type: ignore[misc]
                )

    def submit(self, step: Step, site: Site, parallel: int | None = None) -> bool:
        """Begin a step; False when the host is busy or as many hosts as allowed are worked on.

        `parallel` takes the place of `controller.parallel` where it is more; where it is less the loop keeps to it.
        """
        if not self._free(step.host, site, parallel or 0):
            return False
        if step.kind == "inspect":
            self._spawn(step.host, site, lambda: self._inspector.inspect(step.host, site))
            return True
        circuits = self._circuits if step.kind == "start" else None
        if circuits is not None and (why := circuits.crowd(step.host)):
            self._waiting[step.host] = why
            return False
        state = HostState.BOOTING if step.kind == "start" else HostState.DRAINING
        try:
            action = self._hands.journal.begin(
                step.host, step.kind, step.pool, step.reason, self._hands.clock.now(), state
            )
        except (Busy, IllegalMove):  # the host changed since the plan was made; the next one sees it as it is
            return False
        if circuits is not None:
            circuits.begins(step.host)
        self._spawn(step.host, site, lambda: self._run(action, site))
        return True

    def resume(self, site: Site) -> None:
        """Take up again the actions that nobody works on: left open by an earlier run, or by a journal that failed."""
        for action in self._hands.journal.open_actions():
            if self._free(action.host, site):
                self._spawn(
                    action.host,
                    site,
                    lambda action=action: self._run_open(action, site),  # type: ignore[misc]
                )

    def wait(self, timeout_s: float) -> bool:
        """Wait for every thread; False when some still run."""
        deadline = self._hands.clock.monotonic() + timeout_s
        while self.busy() and self._hands.clock.monotonic() < deadline:
            self._hands.clock.sleep(POLL_S)
        return not self.busy()

    def _free(self, host: str, site: Site, parallel: int = 0) -> bool:
        most = max(site.spec.controller.parallel, parallel)
        busy = self.busy()
        if host in busy:
            return False
        if len(busy) < most:
            return True
        if len(busy) < most + MOST_ASIDE and len(busy - self.stuck(site) - self._hands.loading) < most:
            return True
        if any(0.0 < site.machines.reaching_s(one) <= STUCK_S for one in busy):
            self._count_again()
        return False

    def _count_again(self) -> None:
        """Somebody waits for a place: have the loop look again once who does not answer is no longer counted."""
        with self._lock:
            if self._counting:
                return
            self._counting = True

        def later() -> None:
            self._hands.clock.sleep(STUCK_S)
            self._counting = False
            self._hands.on_change()

        self._spawn_beside("count", later)

    def _spawn(self, host: str, site: Site, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except JournalError as error:
                # what is not recorded is taken up again by resume(), or found by the next look
                log.error("the work on %s is broken off: %s", host, error)
            finally:
                self._hands.pulse.ends(work_on(host))
                with self._lock:
                    self._running.discard(host)
                self._hands.on_change()

        with self._lock:
            self._running.add(host)
        # a stop may wait twice for the drain before anything is heard of it, and a machine to be on or off
        one = site.spec.host(host)
        switching_s = 0.0 if one.power.driver == "none" else one.power.boot_timeout + one.power.off_timeout
        self._hands.pulse.within(work_on(host), ACTION_S + 2 * one.agent.drain_timeout + switching_s)
        self._spawn_beside(f"act-{host}", run)

    def _run_open(self, action: Action, site: Site) -> None:
        if (
            action in self._hands.journal.open_actions()
        ):  # its thread may have ended it just before this one began
            self._run(action, site)

    def _run(self, action: Action, site: Site) -> None:
        record = self._hands.record(action.host)
        if action.kind == "start" and record.state is HostState.FAILED:
            # it failed already, and its end was cut off: it is cleaned up, and never run a second time
            self._give_up(action, record.error or "the start failed", site)
            return
        try:
            (start if action.kind == "start" else stop)(action, site, self._hands)
        except JournalError:
            raise  # nothing more is done to a host while it can't be recorded; the action stays open
        except (
            Exception
        ) as error:  # one host's trouble, a bug of ours included, must not take the others down
            if not isinstance(error, HostFailure):
                log.exception("%s of %s", action.kind, action.host)
            self._fail(action, error, site)

    def _fail(self, action: Action, error: Exception, site: Site) -> None:
        """Close a failed action; after a failed start, see to it that nothing half-started is left."""
        text = words(error, action.host)
        if isinstance(error, HostFailure) and error.unreachable:
            self._lose(action, error, site)
        elif action.kind == "start" and self._hands.record(action.host).action_id is not None:
            self._hands.move(action.host, HostState.FAILED, "start failed", error=text)
            self._give_up(action, text, site)
        else:
            self._conclude(action, HostState.FAILED, text, held(error))

    def _give_up(self, action: Action, text: str, site: Site) -> None:
        """The host is on record as failed; end what the start left there."""
        changes: dict[str, Any] = {}
        try:
            site.machines.machine(action.host).stop(grace_s=0.0)
            changes = {"action_id": None, "agent_port": None}
        except JournalError:
            raise
        except (
            Exception
        ) as left:  # whatever it is, the action must be closed, or its host stays busy for ever
            text = f"{text} Besides, {words(left, action.host)}"
            self._conclude(action, HostState.FAILED, text, held(left))
            return
        self._conclude(action, HostState.FAILED, text, **changes)

    def _lose(self, action: Action, error: HostFailure, site: Site) -> None:
        """It can't be reached: nothing is known, so nothing counts as failed."""
        now = self._hands.clock.now()
        delay_s = look_delay_s(0.0, error)
        if action.kind == "stop" and site.spec.host(action.host).power.driver != "none":
            # its power was tried too; again only once everybody has seen how it ended
            delay_s = max(LAST_LOOK_S, 3 * site.spec.controller.interval)
        self._hands.journal.conclude(
            action,
            HostState.UNREACHABLE,
            f"{action.kind} failed",
            now,
            error=words(error, action.host),
            retry_at=now + delay_s,
        )

    def _conclude(
        self, action: Action, state: HostState, text: str, unproven: bool = False, **changes: Any
    ) -> None:
        """`unproven`: something of the agent is still there."""
        now, failures = self._hands.clock.now(), self._hands.record(action.host).failures + 1
        retry_at = now + (HELD_S if unproven else retry_delay_s(failures))
        if unproven:
            failures = max(failures, QUARANTINE_AFTER)
        self._hands.journal.conclude(
            action,
            state,
            f"{action.kind} failed",
            now,
            error=told_held(text, action.host) if unproven else told(text, action.host, failures),
            failures=failures,
            retry_at=retry_at,
            unproven=unproven,
            **changes,
        )
