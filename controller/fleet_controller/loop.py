"""The control's way: observe -> window -> policy -> plan -> actuate -> journal.

Each tick looks at what is, so a controller that was killed goes on where the journal and the hosts say it was.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fleet_controller import requests
from fleet_controller.actuate import Actuator, Site
from fleet_controller.actuate.allowance import Allowance
from fleet_controller.actuate.circuit import Circuits
from fleet_controller.actuate.hands import Hands
from fleet_controller.autoscaler import STALE_TICKS, Autoscaler
from fleet_controller.backends import backends
from fleet_controller.course import Course
from fleet_controller.fleetfile import FleetFile
from fleet_controller.foresight.basis import Basis, stale
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.journal import HostRecord, Journal, JournalError, JournalGone
from fleet_controller.latencies import HostLatencies
from fleet_controller.lifecycle import HostState
from fleet_controller.news import News
from fleet_controller.observe import Observation, Target
from fleet_controller.outside import Bell, Outside
from fleet_controller.plan import PoolView, Step, blind, mass_loss, out_of_sight, stops_left
from fleet_controller.policies import STALE_AFTER_S, Decision
from fleet_controller.powerwatch import PowerWatch, drift
from fleet_controller.premises import read_basis
from fleet_controller.pulse import LOOK_S, LOOP_S
from fleet_controller.records import UNKNOWN_ACTION
from fleet_controller.spec import FleetSpec, PoolSpec, SpecError
from fleet_controller.status import Picture
from fleet_controller.tick import PoolTick
from fleet_controller.view import pool_rank, pool_view

log = logging.getLogger(__name__)


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
        self._pulse = outside.pulse
        self._woken = outside.bell()
        self._allowance = Allowance()
        hands = Hands(
            journal,
            self._doorkeeper.door,
            self._observer,
            self._woken.set,
            self._clock,
            self._pulse,
            self._allowance,
        )
        self._actuator = Actuator(hands, outside.spawn)
        self._autoscaler = Autoscaler(journal)
        self._latencies = HostLatencies()
        self._news = News(journal)
        self._power = PowerWatch(self._clock, outside.spawn)
        self._retired: list[Site] = []
        self._ticks: dict[str, PoolTick] = {}
        self._observation: Observation | None = None
        self._published: dict[str, HostRecord] = {}
        self._looking = False
        self._look_soon = False
        self._looked: Observation | Exception | None = None
        requests.take_in(spec, journal, self._clock.now(), self._site.known_before)

    @property
    def _spec(self) -> FleetSpec:
        return self._site.spec

    def run(self, stop: Bell) -> None:
        """Tick until `stop` is set, and meanwhile have a balancer that ended started again at once.

        Raises JournalGone where the state store was deleted.
        """
        if self._file.problem:  # it was started with the last good one
            self._journal.record(self._clock.now(), "config", self._file.problem)
        end_watch = self._doorkeeper.watch(self._door_lost)
        try:
            self._run(stop)
        finally:
            end_watch()
            self._pulse.ends("the loop")

    def _door_lost(self) -> None:
        if self._goal() == "up":
            self._doorkeeper.revive()
            self._woken.set()

    def _run(self, stop: Bell) -> None:
        due = self._clock.monotonic()
        while not stop.is_set():
            self._pulse.within("the loop", LOOP_S)
            try:
                due = self._turn(due)
            except JournalGone:
                raise  # whoever went on would start a second balancer beside one that nobody remembers
            except Exception as error:
                # Nobody would start the controller again: it says what went wrong, a full disk or a bug of ours, and
                # tries again at the next interval. What it did not come to is found again then.
                self._complain(error)
                due = self._clock.monotonic() + self._spec.controller.interval
                stop.wait(self._spec.controller.interval)
            # while a look goes on, the next one is not due, however long it takes
            left_s = self._outside.poll_s if self._looking else due - self._clock.monotonic()
            self._woken.wait(min(self._outside.poll_s, max(0.0, left_s)))

    def _turn(self, due: float) -> float:
        """Look at each interval, and at once when an operator asked; decide on what was seen; reconcile on change.

        The look goes on beside: a host that hangs keeps it waiting for seconds, and must keep nobody else waiting.
        """
        asked = self._answer()
        if (asked or self._look_soon or self._clock.monotonic() >= due) and not self._looking:
            self._look_soon = False
            due = self._clock.monotonic() + self._spec.controller.interval
            self._begin_look()
        looked = self._looked
        if looked is not None:
            self._looked = None
            if isinstance(looked, Exception):
                raise looked
            self._decide(looked)
        elif asked or self._woken.is_set():
            self.reconcile(self._clock.now())
        return due

    def _complain(self, error: Exception) -> None:
        if isinstance(error, JournalError):
            log.error("nothing is done while the state can't be recorded: %s", error)
        else:
            log.error("the tick failed", exc_info=error)

    def once(self) -> TickReport:
        """One tick, and its actions to their end."""
        self._answer()
        report = self._decide(self._look(self._prepared(), self._goal(), self._clock.now()))
        while self._actuator.busy():
            if self._woken.wait(
                self._outside.poll_s
            ):  # a host moved: a drain waits until the balancer was told
                self._woken.clear()
                self._publish(self._clock.now())
        self._publish(self._clock.now())
        return report

    def _decide(self, observation: Observation) -> TickReport:
        """What one look leads to."""
        now, goal = self._clock.now(), self._goal()
        self._observation = observation
        self._allowance.renew()
        self._hear(observation)
        records = self._welcome_back(now)
        # while it is not known what runs, nothing is decided about it
        asked = "wait" if goal == "up" and _surveying(records) else goal
        self._ticks = {
            pool.name: self._autoscaler.tick(self._spec, pool, self._observation, records, asked)
            for pool in self._spec.pools
        }
        decisions = {name: tick.decision for name, tick in self._ticks.items() if tick.decision is not None}
        begun = self.reconcile(now, after_a_look=True)
        self._after_a_look(now, goal)
        return TickReport(decisions, begun)

    def _after_a_look(self, now: float, goal: str) -> None:
        """Say what inspections may do, and tell what only the whole picture shows."""
        for pool in self._spec.pools:
            view = self._view(pool, self._published, frozenset())
            self._allowance.grant(pool.name, stops_left(view))
            tick = self._ticks.get(pool.name)
            stale_after_s = max(STALE_AFTER_S, STALE_TICKS * self._spec.controller.interval)
            age_s = 0.0 if tick is None or tick.signal is None else tick.signal.age_s
            stale = goal == "up" and age_s > stale_after_s
            text = "nothing is heard of its traffic, so nothing is scaled down until it is"
            self._news.tell(now, "blackout", text if stale else "", pool.name, "its traffic is known again")
            lost, in_use = out_of_sight(view)
            text = (
                f"{lost} of {in_use} hosts are out of sight; that may be the network, so no host is stopped"
            )
            frozen = mass_loss(view) or (blind(view) and in_use > 1)
            self._news.tell(
                now, "mass_loss", text if frozen else "", pool.name, "enough hosts are in sight again"
            )
        self._tell_power(now)
        apart = self._clock.apart()
        ahead = "ahead of" if apart > 0 else "behind"
        text = (
            f"this machine's clock was set and is {ahead} the fleet's time, which follows it slowly so that nothing "
            "ends early; schedules run by the fleet's time until both agree"
        )
        self._news.tell(
            now, "clock", text if apart else "", over="the fleet's time is this machine's clock again"
        )

    def _tell_power(self, now: float) -> None:
        """Ask the power controls that are due, and tell where they contradict the plan."""
        self._power.look(self._site, self._actuator.busy())
        for name, seen in self._power.seen().items():
            if (record := self._published.get(name)) is not None:
                text = drift(record, seen) or ""
                self._news.tell(now, "power_drift", text, record.pool, "plan and power control agree", name)

    def reconcile(self, now: float, after_a_look: bool = False) -> list[Step]:
        """Begin what the last decisions call for, as the hosts are now, and tell the balancer and the operator.

        Silent hosts are inspected once after each look: the end of an inspection must not call for the next one.
        """
        self._woken.clear()
        if self._observation is None:  # nothing was seen yet, so nothing is known that a step could rest on
            return []
        # Who is busy is asked before how the hosts are: an action that ends in between leaves its host alone for this
        # once, where the other order would take its last state but one for the truth.
        acting = {a.host for a in self._journal.open_actions()}
        busy = self._actuator.busy() | acting
        records = self._journal.hosts()
        self._actuator.plan_anew(Circuits(self._spec, records))
        course = Course(self._journal, self._site, records)
        goal, surveying = self._goal(), _surveying(records)
        undecided = {p.name for p in self._spec.pools if self._journal.pool(p.name).desired is None}
        ranks = [
            pool_rank(
                self._spec, p, self._view(p, course.seen, busy), self._observation, p.name not in undecided
            )
            for p in self._spec.pools
        ]
        wanted = []
        for step in course.steps(ranks, goal, now):
            if step.kind == "inspect" and not after_a_look:
                continue
            if step.kind != "inspect" and goal == "up" and (surveying or step.pool in undecided):
                continue
            wanted.append(step)
        begun = self._begin(course, wanted, acting)
        decided = goal == "down" or not (surveying or undecided)
        if decided and not begun and course.idle(wanted, ranks, acting, busy, now):
            self._end(course, wanted, now, after_a_look)
        self._publish(now)
        return begun

    def _begin(self, course: Course, wanted: list[Step], acting: set[str]) -> list[Step]:
        """Begin what the operation under way admits of what is wanted, no more hosts at once than it allows."""
        begun = []
        most = course.parallel
        if most is None and course.operation is not None and course.operation.most_failures is not None:
            most = self._spec.controller.parallel  # who counts failures must see how the first ones fare
        for step in course.admitted(wanted):
            if (
                step.kind != "inspect"
                and most is not None
                and len(acting) >= most
                and len(acting - self._actuator.stuck(self._site)) >= most
            ):
                continue
            if self._actuator.submit(step, self._site, most):
                begun.append(step)
                if step.kind == "inspect":
                    continue
                acting.add(step.host)
                if step.kind == "stop":
                    self._allowance.spend(step.pool)
        return begun

    def _end(self, course: Course, wanted: list[Step], now: float, after_a_look: bool) -> None:
        """The operation has nothing left to do. That is believed after a look that began after it did: stops are
        bounded from look to look, and more may be wanted after the next one."""
        assert self._observation is not None and course.operation is not None
        if after_a_look and self._observation.at >= course.operation.since:
            course.end(wanted, now)
        else:
            self._look_soon = True

    # observe

    def _prepared(self) -> Mapping[str, Target]:
        """See to what has to be in order before a look; whom to ask."""
        self._reload(self._clock.now())
        self._close_retired()
        self._actuator.resume(self._site)
        return self._site.targets(self._journal.hosts())

    def _begin_look(self) -> None:
        """Look beside the loop; what is seen, or what went wrong, is in `_looked` when that is done."""
        targets, goal, now = self._prepared(), self._goal(), self._clock.now()
        self._looking = True
        self._pulse.within("the look at the fleet", LOOK_S)

        def look() -> None:
            try:
                self._looked = self._look(targets, goal, now)
            except Exception as error:  # whatever it is, the loop must hear of it, or it would wait for ever
                self._looked = error
            finally:
                self._pulse.ends("the look at the fleet")
                self._looking = False
                self._woken.set()

        self._outside.spawn("look", look)

    def _look(self, targets: Mapping[str, Target], goal: str, now: float) -> Observation:
        if goal == "up":
            self._doorkeeper.tend(now, self._spec.controller.unreachable_after)
        return self._observer.look(targets, self._doorkeeper.door, now)

    def _hear(self, observation: Observation) -> None:
        answers = {name: r.status for name, r in observation.hosts.items() if r.status is not None}
        for name, status in answers.items():
            self._latencies.feed(observation.at, name, status)
        self._actuator.heard(answers, self._site)
        self._doorkeeper.heard(observation.balancer)

    def _welcome_back(self, now: float) -> dict[str, HostRecord]:
        """A host that could not be reached and whose agent answers again is ready: nothing needs mending there.

        One that is to be stopped is not: that takes SSH, and an inspection finds out about it. The records as they are
        then.
        """
        assert self._observation is not None
        busy, goal = self._actuator.busy(), self._goal()
        records = self._journal.hosts()  # as they are after the look, which took its time
        for name, record in records.items():
            report = self._observation.hosts.get(name)
            if record.state is not HostState.UNREACHABLE or name in busy or record.leaves(goal):
                continue
            if report is not None and report.status is not None and report.status.state == "ready":
                moved = self._journal.move(
                    name, HostState.READY, "answers again", now, error=None, retry_at=0.0
                )
                records = {**records, name: moved}
        return records

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
            stopped=self._allowance.used(pool.name),
            signal=tick.signal if (tick := self._ticks.get(pool.name)) is not None else None,
            speeds=self._autoscaler.speeds(pool.name),
        )

    def _goal(self) -> str:
        return "down" if self._journal.goal() == "down" else "up"

    # tell

    def _publish(self, now: float) -> bool:
        """Give the balancer the backends as they are now, and the operator the picture.

        False where the balancer could not be told.
        """
        records = self._published = self._journal.hosts()
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
        course = Course(self._journal, self._site, records)
        picture = Picture(
            self._spec,
            self._goal(),
            self._doorkeeper.endpoint,
            records,
            self._ticks,
            self._observation,
            self._latencies,
            self._power.seen(),
            {**course.left_out(), **self._actuator.waiting()},
            None if course.operation is None else course.operation.told(),
        )
        drawn = picture.draw(now)
        drawn["controller"]["config"] = self._file.problem or None
        drawn["controller"]["rolled_back"] = self._site.sent_back
        self._journal.write_status(drawn)
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
                    self._adopt(self._file.load(), now, request.args.get("basis"))
                    self._file.accepted()
                elif request.kind == "rollback":
                    self._change_site(self._outside.open_site(self._spec))
                answer = requests.apply(request, self._spec, self._journal, now)
                # A key that was revoked is refused once the operator is told so.
                if request.kind == "keys" and not self._publish(now):
                    answer += "; the balancer does not answer now, and is told once it does"
                self._journal.reply(request, now, True, answer)
            except (requests.Refused, SpecError, HostFailure) as refusal:
                self._journal.reply(request, now, False, str(refusal))
        return bool(asked)

    def _reload(self, now: float) -> None:
        if self._site.is_outdated:  # a pool was sent back, or on, while nobody told us
            self._change_site(self._outside.open_site(self._spec))
        changed = self._file.changed()
        waits = changed and self._spec.controller.apply == "up"
        text = f"{self._file.path.name} was changed; that counts from the next `fleetctl up` on"
        over = f"{self._file.path.name} is again what the last `fleetctl up` took"
        self._news.tell(now, "config", text if waits else "", over=over)
        if not changed or waits:
            return
        try:
            self._adopt(self._file.load(), now)
            self._file.accepted()
            self._journal.record(now, "config", f"{self._file.path.name} was read again")
        except (SpecError, requests.Refused, HostFailure) as error:
            self._journal.record(now, "config", self._file.refused(error))

    def _adopt(self, spec: FleetSpec, now: float, basis: Mapping[str, Any] | None = None) -> None:
        """Go on with another version of fleet.yaml. Raises Refused where it can't be followed while the fleet runs, or
        where the world is not what a plan's `basis` says."""
        moved = [
            name
            for name, before, after in (
                ("fleet", self._spec.fleet, spec.fleet),
                ("balancer.listen", self._spec.balancer.listen, spec.balancer.listen),
                ("balancer.admin", self._spec.balancer.admin, spec.balancer.admin),
                ("balancer.engine", self._spec.balancer.engine, spec.balancer.engine),
                ("controller.state", self._spec.controller.state, spec.controller.state),
            )
            if before != after
        ]
        if moved:
            raise requests.Refused(
                f"{' and '.join(moved)} can't change while the fleet runs; change it back, run `fleetctl down`, "
                "change it again and run `fleetctl up`"
            )
        site = self._outside.open_site(spec)
        if basis is not None:
            moved = Basis.model_validate(basis).moved(read_basis(site, self._file.checksum, self._journal))
            if moved:
                raise requests.Refused(stale(moved))
        requests.take_in(spec, self._journal, now, site.known_before)
        self._change_site(site)
        self._doorkeeper.adopt(spec)

    def _change_site(self, site: Site) -> None:
        self._retired.append(self._site)
        self._site = site

    def _close_retired(self) -> None:
        """Hang up on hosts that were reached by an earlier version of fleet.yaml, once no action uses that."""
        if self._retired and not self._actuator.busy() and not self._power.busy():
            for site in self._retired:
                site.machines.close()
            self._retired.clear()

    def rest(self, patience_s: float) -> None:
        """Let actions under way end, for a moment; the journal keeps what is cut off, and the next run resumes it."""
        self._actuator.wait(patience_s)


def _surveying(records: Mapping[str, HostRecord]) -> bool:
    """Whether the journal was lost and there are hosts that were not looked at since."""
    return any(r.action_id == UNKNOWN_ACTION and not r.retry_at for r in records.values())
