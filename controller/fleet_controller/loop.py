"""The control's way: observe -> window -> policy -> plan -> actuate -> journal.

Each tick looks at what is, so a controller that was killed goes on where the journal and the hosts say it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from dataclasses import dataclass

from fleet_controller import requests
from fleet_controller.actuate import Actuator, Site
from fleet_controller.actuate.hands import Hands
from fleet_controller.autoscaler import Autoscaler
from fleet_controller.backends import backends
from fleet_controller.doorwatch import DoorWatch
from fleet_controller.fleetfile import FleetFile
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.journal import HostRecord, Journal, JournalError
from fleet_controller.latencies import HostLatencies
from fleet_controller.lifecycle import HostState
from fleet_controller.observe import Observation
from fleet_controller.outside import Outside
from fleet_controller.plan import PoolView, Step, steps
from fleet_controller.policies import Decision
from fleet_controller.spec import FleetSpec, PoolSpec, SpecError
from fleet_controller.status import Picture
from fleet_controller.tick import PoolTick
from fleet_controller.view import pool_view

log = logging.getLogger(__name__)

REQUEST_POLL_S = 0.2


@dataclass(frozen=True)
class TickReport:
    """What one tick decided and began."""

    decisions: dict[str, Decision]
    steps: list[Step]


class Loop:
    """The controller of one fleet."""

    def __init__(self, file: FleetFile, spec: FleetSpec, journal: Journal, outside: Outside):
        self._file = file
        self._journal = journal
        self._outside = outside
        self._clock = outside.clock
        self._observer = outside.observer
        self._doorkeeper = outside.doorkeeper
        self._site = outside.open_site(spec)
        self._woken = threading.Event()
        hands = Hands(journal, self._doorkeeper.door, self._observer, self._woken.set, self._clock)
        self._actuator = Actuator(hands, outside.spawn)
        self._autoscaler = Autoscaler(journal)
        self._latencies = HostLatencies()
        self._retired: list[Site] = []
        self._ticks: dict[str, PoolTick] = {}
        self._observation: Observation | None = None
        self._began: Counter[str] = Counter()
        requests.take_in(spec, journal, self._clock.now())

    @property
    def _spec(self) -> FleetSpec:
        return self._site.spec

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set, and meanwhile have a balancer that ended started again at once."""
        watch = DoorWatch(self._doorkeeper.process, self._door_lost)
        watch.start()
        try:
            self._run(stop)
        finally:
            watch.stop()

    def _door_lost(self) -> None:
        if self._goal() == "up":
            self._doorkeeper.revive()
            self._woken.set()

    def _run(self, stop: threading.Event) -> None:
        """Tick at each interval, at once when an operator asks, and reconcile on every change."""
        due = time.monotonic()
        while not stop.is_set():
            try:
                asked = self._answer()
                if asked or time.monotonic() >= due:
                    due = time.monotonic() + self._spec.controller.interval
                    self.tick(self._clock.now())
                elif self._woken.is_set():
                    self.reconcile(self._clock.now())
            except Exception as error:
                # Nobody would start the controller again: it says what went wrong, a full disk or a bug of ours, and
                # tries again at the next interval. What it did not come to is found again then.
                self._complain(error)
                due = time.monotonic() + self._spec.controller.interval
                stop.wait(self._spec.controller.interval)
            self._woken.wait(min(REQUEST_POLL_S, max(0.0, due - time.monotonic())))

    def _complain(self, error: Exception) -> None:
        if isinstance(error, JournalError):
            log.error("nothing is done while the state can't be recorded: %s", error)
        else:
            log.error("the tick failed", exc_info=error)

    def once(self) -> TickReport:
        """One tick, and its actions to their end."""
        self._answer()
        report = self.tick(self._clock.now())
        while self._actuator.busy():
            if self._woken.wait(REQUEST_POLL_S):  # a host moved: a drain waits until the balancer was told
                self._woken.clear()
                self._publish(self._clock.now())
        self._publish(self._clock.now())
        return report

    def tick(self, now: float) -> TickReport:
        """Look, decide, act."""
        self._reload(now)
        self._close_retired()
        self._actuator.resume(self._site)
        goal = self._goal()
        if goal == "up":
            self._doorkeeper.tend(now, self._spec.controller.unreachable_after)
        self._observation = self._look(now)
        self._welcome_back(now)
        records = self._journal.hosts()
        self._ticks = {
            pool.name: self._autoscaler.tick(self._spec, pool, self._observation, records, goal)
            for pool in self._spec.pools
        }
        self._began.clear()
        decisions = {name: tick.decision for name, tick in self._ticks.items() if tick.decision is not None}
        return TickReport(decisions, self.reconcile(now, after_a_look=True))

    def reconcile(self, now: float, after_a_look: bool = False) -> list[Step]:
        """Begin what the last decisions call for, as the hosts are now, and tell the balancer and the operator.

        Silent hosts are inspected once after each look: the end of an inspection must not call for the next one.
        """
        self._woken.clear()
        # Who is busy is asked before how the hosts are: an action that ends in between leaves its host alone for this
        # once, where the other order would take its last state but one for the truth.
        busy = self._actuator.busy() | {a.host for a in self._journal.open_actions()}
        records = self._journal.hosts()
        begun = []
        for pool in self._spec.pools:
            for step in steps(self._view(pool, records, busy), self._goal(), now):
                if step.kind == "inspect" and not after_a_look:
                    continue
                if self._actuator.submit(step, self._site):
                    begun.append(step)
                    self._began[pool.name] += step.kind == "stop"
        self._publish(now)
        return begun

    # observe

    def _look(self, now: float) -> Observation:
        targets = self._site.targets(self._journal.hosts())
        observation = self._observer.look(targets, self._doorkeeper.door, now)
        answers = {name: r.status for name, r in observation.hosts.items() if r.status is not None}
        for name, status in answers.items():
            self._latencies.feed(now, name, status)
        self._actuator.heard(answers)
        self._doorkeeper.heard(observation.balancer)
        return observation

    def _welcome_back(self, now: float) -> None:
        """A host that could not be reached and whose agent answers again is ready: nothing needs mending there."""
        assert self._observation is not None
        busy = self._actuator.busy()
        for name, record in self._journal.hosts().items():  # as they are after the look, which took its time
            report = self._observation.hosts.get(name)
            if record.state is not HostState.UNREACHABLE or name in busy:
                continue
            if report is not None and report.status is not None and report.status.state == "ready":
                self._journal.move(name, HostState.READY, "answers again", now, error=None, retry_at=0.0)

    # plan

    def _view(self, pool: PoolSpec, records: dict[str, HostRecord], busy: frozenset[str]) -> PoolView:
        assert self._observation is not None
        known = self._journal.pool(pool.name)
        return pool_view(
            self._spec,
            pool,
            records,
            pool.scaling.min_servers if known.desired is None else known.desired,
            release=self._site.releases[pool.name].key,
            reason=known.why,
            busy=busy,
            observation=self._observation,
            stopped=self._began[pool.name],
        )

    def _goal(self) -> str:
        return "down" if self._journal.goal() == "down" else "up"

    # tell

    def _publish(self, now: float) -> bool:
        """Give the balancer the backends as they are now, and the operator the picture.

        False where the balancer could not be told.
        """
        records = self._journal.hosts()
        seen = self._observation.hosts if self._observation else {}
        wanted = backends(
            self._spec,
            records,
            self._agent_address,
            self._site.token,
            self._journal.api_keys(),
            {name: report.status for name, report in seen.items() if report.status is not None},
        )
        told = self._doorkeeper.tell(wanted, self._observation.balancer if self._observation else None)
        picture = Picture(
            self._spec,
            self._goal(),
            self._doorkeeper.endpoint,
            records,
            self._ticks,
            self._observation,
            self._latencies,
        )
        self._journal.write_status(picture.draw(now))
        return told

    def _agent_address(self, record: HostRecord) -> str:
        target = self._site.target(record)
        assert target is not None
        return target.url.removeprefix("http://")

    # upkeep

    def _answer(self) -> bool:
        """Follow what operators asked; True when there was something."""
        asked = self._journal.asked()
        for request in asked:
            now = self._clock.now()
            try:
                if request.kind == "up":
                    self._adopt(self._file.load(), now)
                answer = requests.apply(request, self._spec, self._journal, now)
                # A key that was revoked is refused once the operator is told so.
                if request.kind == "keys" and not self._publish(now):
                    answer += "; the balancer does not answer now, and is told once it does"
                self._journal.reply(request, now, True, answer)
            except (requests.Refused, SpecError, HostFailure) as refusal:
                self._journal.reply(request, now, False, str(refusal))
        return bool(asked)

    def _reload(self, now: float) -> None:
        if not self._file.changed():
            return
        try:
            self._adopt(self._file.load(), now)
            self._journal.record(now, "config", f"{self._file.path.name} was read again")
        except (SpecError, requests.Refused, HostFailure) as error:
            self._journal.record(now, "config", f"the last good fleet.yaml stays in force: {error}")

    def _adopt(self, spec: FleetSpec, now: float) -> None:
        """Go on with another version of fleet.yaml. Raises Refused where it can't be followed while the fleet runs."""
        moved = [
            name
            for name, before, after in (
                ("fleet", self._spec.fleet, spec.fleet),
                ("balancer.listen", self._spec.balancer.listen, spec.balancer.listen),
                ("balancer.admin", self._spec.balancer.admin, spec.balancer.admin),
                ("balancer.engine", self._spec.balancer.engine, spec.balancer.engine),
            )
            if before != after
        ]
        if moved:
            raise requests.Refused(
                f"{' and '.join(moved)} can't change while the fleet runs; change it back, run `fleetctl down`, "
                "change it again and run `fleetctl up`"
            )
        site = self._outside.open_site(spec)
        requests.take_in(spec, self._journal, now)
        self._retired.append(self._site)
        self._site = site
        self._doorkeeper.adopt(spec)

    def _close_retired(self) -> None:
        """Hang up on hosts that were reached by an earlier version of fleet.yaml, once no action uses that."""
        if self._retired and not self._actuator.busy():
            for site in self._retired:
                site.machines.close()
            self._retired.clear()

    def rest(self, patience_s: float) -> None:
        """Let actions under way end, for a moment; the journal keeps what is cut off, and the next run resumes it."""
        self._actuator.wait(patience_s)
