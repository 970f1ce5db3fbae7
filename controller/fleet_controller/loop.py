"""The control's way: observe -> window -> policy -> plan -> actuate -> journal.

Each tick looks at what is, so a controller that was killed goes on where the journal and the hosts say it was.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from typing import Any

from fleet_controller import daemons, requests
from fleet_controller.actuate import Actuator, open_site
from fleet_controller.actuate.hands import Hands
from fleet_controller.backends import backends
from fleet_controller.fleetfile import FleetFile
from fleet_controller.frontdoor import FrontDoor, FrontDoorError
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.journal import HostRecord, Journal, JournalError
from fleet_controller.latencies import HostLatencies
from fleet_controller.lifecycle import STARTING_UP, HostState
from fleet_controller.observe import Observation, Observer
from fleet_controller.plan import PoolView, Step, steps
from fleet_controller.policies import Decision, PolicyState, decide
from fleet_controller.spec import FleetSpec, PoolSpec, SpecError
from fleet_controller.statefolder import StateFolder
from fleet_controller.status import Picture, PoolTick
from fleet_controller.view import pool_view, roomless
from fleet_controller.window import HostSample, Learned, PoolSample, Window
from fleet_wire.balancer import BackendList
from fleet_wire.histogram import LatencyHistogram

log = logging.getLogger(__name__)

REQUEST_POLL_S = 0.2
# How long a balancer that answers nothing may take to end before it is killed.
HUNG_GRACE_S = 2.0


@dataclass(frozen=True)
class TickReport:
    """What one tick decided and began."""

    decisions: dict[str, Decision]
    steps: list[Step]


class Loop:
    """The controller of one fleet."""

    def __init__(
        self, file: FleetFile, spec: FleetSpec, journal: Journal, folder: StateFolder, executor: Executor
    ):
        self._file = file
        self._journal = journal
        self._folder = folder
        self._site = open_site(spec, folder)
        self._observer = Observer(executor)
        self._door = FrontDoor(self._door_address, folder.token("balancer"))
        self._woken = threading.Event()
        self._actuator = Actuator(Hands(journal, self._door, self._observer, self._woken.set))
        self._latencies = HostLatencies()
        self._windows: dict[str, Window] = {}
        self._ticks: dict[str, PoolTick] = {}
        self._observation: Observation | None = None
        self._began: Counter[str] = Counter()
        self._started: dict[str, float] = {}
        self._sent: tuple[BackendList, float] | None = None
        self._door_seen = True
        self._door_silent_since: float | None = None
        requests.take_in(spec, journal, time.time())

    @property
    def _spec(self) -> FleetSpec:
        return self._site.spec

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set: at each interval, at once when an operator asks, and reconcile on every change."""
        due = time.monotonic()
        while not stop.is_set():
            try:
                asked = self._answer()
                if asked or time.monotonic() >= due:
                    due = time.monotonic() + self._spec.controller.interval
                    self.tick(time.time())
                elif self._woken.is_set():
                    self.reconcile(time.time())
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
        report = self.tick(time.time())
        while self._actuator.busy():
            if self._woken.wait(REQUEST_POLL_S):  # a host moved: a drain waits until the balancer was told
                self._woken.clear()
                self._publish(time.time())
        self._publish(time.time())
        return report

    def tick(self, now: float) -> TickReport:
        """Look, decide, act."""
        self._reload(now)
        self._actuator.resume(self._site)
        self._tend_balancer(now)
        records = self._journal.hosts()
        self._observation = self._look(records, now)
        self._welcome_back(now)
        decisions = {pool.name: self._decide(pool, now) for pool in self._spec.pools}
        self._began.clear()
        begun = self.reconcile(now, after_a_look=True)
        return TickReport({k: v for k, v in decisions.items() if v is not None}, begun)

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

    def _look(self, records: dict[str, HostRecord], now: float) -> Observation:
        observation = self._observer.look(self._site.targets(records), self._door, now)
        for name, report in observation.hosts.items():
            if report.status is not None:
                self._latencies.feed(now, name, report.status)
        if observation.balancer is not None:
            self._door_silent_since = None
        elif self._door_silent_since is None:
            self._door_silent_since = time.monotonic()
        self._actuator.heard(name for name, report in observation.hosts.items() if report.status is not None)
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

    # decide

    def _decide(self, pool: PoolSpec, now: float) -> Decision | None:
        """The pool's next desired number; None while the fleet goes down."""
        records = self._journal.hosts()
        assert self._observation is not None
        without_room = roomless(self._spec, pool, self._observation)
        ready = [n for n in pool.hosts if records[n].state is HostState.READY and n not in without_room]
        starting = [n for n in pool.hosts if records[n].state in STARTING_UP]
        record = self._journal.pool(pool.name)
        window = self._window(pool, record.learned)
        self._feed(window, pool, records, now)
        signal = window.signal(now, ready=len(ready), starting=len(starting))
        decision = None
        if self._goal() == "up":
            state = PolicyState.model_validate(record.policy_state)
            decision, state = decide(pool.scaling, state, signal, now)
            learned = window.learned.model_dump(mode="json")
            if record.paused and record.desired is not None:
                decision = None
                record = replace(record, learned=learned)
            else:
                said = {"at": now, **decision.model_dump(mode="json")}
                if decision.desired != record.desired:
                    data = {
                        "from": record.desired,
                        "to": decision.desired,
                        "signal": signal.model_dump(mode="json"),
                    }
                    self._journal.record(now, "scale", decision.reason, pool.name, data=data)
                    record = replace(record, why=decision.reason)
                record = replace(
                    record,
                    desired=decision.desired,
                    policy_state=state.model_dump(mode="json"),
                    learned=learned,
                    last_decision=said,
                )
            self._journal.save_pool(record)
        self._ticks[pool.name] = PoolTick(record, signal, window.latency_ms(now), without_room)
        return decision

    def _window(self, pool: PoolSpec, learned: dict[str, Any]) -> Window:
        window = self._windows.get(pool.name)
        if window is None:
            window = self._windows[pool.name] = Window(pool.scaling, Learned.model_validate(learned))
        window.spec = pool.scaling
        return window

    def _feed(self, window: Window, pool: PoolSpec, records: dict[str, HostRecord], now: float) -> None:
        assert self._observation is not None
        for name in pool.hosts:
            record = records[name]
            if (
                record.state is HostState.READY
                and record.startup_s
                and self._started.get(name) != record.since
            ):
                self._started[name] = record.since
                if record.since > now - 2 * self._spec.controller.interval:
                    window.started(record.startup_s)
        samples = []
        for name in pool.hosts:
            report = self._observation.hosts.get(name)
            if report is not None and (status := report.status) is not None:
                source = f"{status.pid}@{status.started_at}"
                samples.append(
                    HostSample(
                        at=status.at,
                        name=name,
                        source=source,
                        busy_s=status.busy_s,
                        completed=status.completed,
                        queued=status.queued,
                        ready=status.state == "ready",
                    )
                )
        window.feed(now, self._pool_sample(pool.name), samples)

    def _pool_sample(self, name: str) -> PoolSample | None:
        balancer = self._observation.balancer if self._observation else None
        for pool in balancer.pools if balancer else ():
            if balancer is not None and pool.name == name:
                return PoolSample(
                    at=balancer.at,
                    source=f"{balancer.pid}@{balancer.started_at}",
                    arrivals=pool.arrivals,
                    completed=pool.completed,
                    errors=pool.errors,
                    in_flight=pool.in_flight,
                    queued=pool.queued,
                    latency=LatencyHistogram.from_wire(pool.latency),
                    started_at=balancer.started_at,
                )
        return None

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

    def _publish(self, now: float) -> None:
        """Give the balancer the backends as they are now, and the operator the picture."""
        records = self._journal.hosts()
        wanted = backends(
            self._spec, records, self._agent_address, lambda name: self._folder.token(f"host-{name}")
        )
        balancer = self._observation.balancer if self._observation else None
        started_at = balancer.started_at if balancer else 0.0
        if self._sent != (wanted, started_at) and self._door_silent_since is None:
            try:
                self._door.put(wanted)
                self._sent = (wanted, started_at)
            except FrontDoorError:
                self._sent = None  # the next look tells whether it is well again
        picture = Picture(
            self._spec,
            self._goal(),
            self._endpoint(),
            records,
            self._ticks,
            self._observation,
            self._latencies,
        )
        self._journal.write_status(picture.draw(now))

    def _agent_address(self, record: HostRecord) -> str:
        target = self._site.target(record)
        assert target is not None
        return target.url.removeprefix("http://")

    def _endpoint(self) -> str:
        listen = daemons.balancer(self._spec, self._folder).ready().get("listen", self._spec.balancer.listen)
        return f"http://{listen}"

    def _door_address(self) -> str:
        admin = daemons.balancer(self._spec, self._folder).ready().get("admin", self._spec.balancer.admin)
        return str(admin)

    # upkeep

    def _answer(self) -> bool:
        """Follow what operators asked; True when there was something."""
        asked = self._journal.asked()
        for request in asked:
            now = time.time()
            try:
                if request.kind == "up":
                    self._adopt(self._file.load(), now)
                self._journal.reply(
                    request, now, True, requests.apply(request, self._spec, self._journal, now)
                )
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
            )
            if before != after
        ]
        if moved:
            raise requests.Refused(
                f"{' and '.join(moved)} can't change while the fleet runs; change it back, run `fleetctl down`, "
                "change it again and run `fleetctl up`"
            )
        site = open_site(spec, self._folder)
        requests.take_in(spec, self._journal, now)
        self._site = site

    def _tend_balancer(self, now: float) -> None:
        """Start the balancer again when it is gone, or answers nothing for `unreachable_after`."""
        if self._goal() == "down":
            return
        balancer, patience_s = (
            daemons.balancer(self._spec, self._folder),
            self._spec.controller.unreachable_after,
        )
        try:
            if (
                self._door_silent_since is not None
                and time.monotonic() - self._door_silent_since > patience_s
            ):
                self._door_silent_since = None
                if balancer.stop(HUNG_GRACE_S):
                    self._journal.record(
                        now, "balancer", f"the balancer did not answer for {patience_s:.0f} s and was stopped"
                    )
            if balancer.ensure():
                self._door_silent_since = None
                self._journal.record(now, "balancer", "the balancer was started")
            self._door_seen = True
        except daemons.DaemonError as error:
            if self._door_seen:
                self._journal.record(now, "balancer", str(error))
            self._door_seen = False

    def rest(self, patience_s: float) -> None:
        """Let actions under way end, for a moment; the journal keeps what is cut off, and the next run resumes it."""
        self._actuator.wait(patience_s)
