"""Course: the operation under way as one reconcile sees it: which steps it admits, and whether it is over."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from fleet_controller.actuate import Site
from fleet_controller.journal import HostRecord, Journal
from fleet_controller.lifecycle import HostState
from fleet_controller.operation import Operation, Scope
from fleet_controller.plan import Step
from fleet_controller.plan import steps as pool_steps
from fleet_controller.plan.placement import serves
from fleet_controller.plan.tiers import Rank, fleet_steps


class Course:
    """What the journal says of the operation and its scope, beside the hosts as they are now (`records`).

    `seen` are the records as plan is to see them: hosts that were not asked for are out.
    """

    def __init__(self, journal: Journal, site: Site, records: Mapping[str, HostRecord]) -> None:
        self._journal = journal
        self._records = records
        self._wanted = wanted_releases(site, records)
        self.scope = Scope.model_validate(journal.scope())
        self.operation = read_operation(journal)
        self._hear()
        self.seen = {n: self._meant(r) for n, r in self.scope.seen(records, self._wanted).items()}

    def _meant(self, record: HostRecord) -> HostRecord:
        """As plan is to see it while the operation goes on: it chooses among the hosts that may be touched, and stops
        the ones that the plan file stops."""
        operation = self.operation
        if operation is None or operation.over:
            return record
        if record.state is HostState.OFF and not operation.may_touch(record.name):
            return replace(record, cordoned=True)
        change = (operation.bounds.planned or {}).get(record.name)
        if change == "stop" and record.release == self._wanted.get(record.name):
            return replace(record, cordoned=True)
        return record

    def _hear(self) -> None:
        if self.operation is None or self.operation.over:
            return
        heard = self.operation.heard(self._records)
        if heard is not self.operation:
            self.operation = heard
            self._journal.note_operation(heard.model_dump(mode="json"))

    def steps(self, ranks: Sequence[Rank], goal: str, now: float) -> list[Step]:
        """What plan wants; hosts that `down --limit` named are stopped at once, as `down` does with all."""
        found = [self._told(step) for step in fleet_steps(ranks, goal, now)]
        operation = self.operation
        if goal == "down" or operation is None or operation.kind != "down" or operation.bounds.hosts is None:
            return found
        named = frozenset(operation.bounds.hosts)
        found = [step for step in found if step.host not in named]
        for rank in ranks:
            view = replace(rank.view, hosts=tuple(h for h in rank.view.hosts if h.name in named))
            found += [
                replace(s, reason=_TAKEN) if s.kind == "stop" else s for s in pool_steps(view, "down", now)
            ]
        return found

    def _told(self, step: Step) -> Step:
        left_out = not self.scope.has(step.host) and not self._records[step.host].cordoned
        return replace(step, reason=_TAKEN) if step.kind == "stop" and left_out else step

    def admitted(self, steps: Sequence[Step]) -> list[Step]:
        """Those that may begin, `has_room` allowing. What `fleetctl drain` asked for is no part of any operation."""
        if self.operation is None:
            return list(steps)
        drained = [s for s in steps if s.kind == "stop" and self._records[s.host].cordoned]
        rest = [s for s in steps if s not in drained]
        return [*drained, *self.operation.admitted(rest)]

    @property
    def parallel(self) -> int | None:
        """How many hosts may be worked on at once, where the operator said so."""
        return self.operation.bounds.parallel if self.operation is not None and self.operation.holds else None

    def idle(
        self,
        steps: Sequence[Step],
        ranks: Sequence[Rank],
        acting: Collection[str],
        busy: Collection[str],
        now: float,
    ) -> bool:
        """Whether there is an operation that goes on and has nothing more to wait for.

        Hosts out of sight are waited for, until they were looked for once, where their pool lacks a server.
        """
        operation = self.operation
        if operation is None or operation.over:
            return False
        missed = {h.name for r in ranks if r.lacks > 0 or operation.kind == "down" for h in r.view.hosts}
        lost = [
            name
            for name, record in self._records.items()
            if name in missed and record.state is HostState.UNREACHABLE and name not in operation.failed
            if name in busy or record.retry_at <= now
        ]
        return not operation.unfinished(steps, acting, lost)

    def end(self, steps: Sequence[Step], now: float) -> None:
        """It is over: write down how it went. What it had not come to when too many failed stays as it is."""
        assert self.operation is not None
        ended = self.operation.ended([s.host for s in steps if s.kind != "inspect"], now, self._reached)
        if ended.outcome == "halted" and ended.kind == "up" and ended.bounds.planned is None:
            ended = ended.model_copy(update={"left": (*ended.left, *self._outdated(ended))})
        scope = None
        if ended.outcome == "halted" and ended.kind == "up":
            scope = self.scope.halted(ended.left, self._records).model_dump(mode="json")
        self._journal.note_operation(ended.model_dump(mode="json"), scope)
        self.operation = ended
        if ended.outcome == "halted" or ended.failed or ended.left:
            self._journal.record(now, "operation", _summary(ended), data=ended.told())

    def _outdated(self, ended: Operation) -> list[str]:
        """Hosts that serve with another release than they should: plan replaces none while a host fails."""
        return [
            name
            for name, record in self._records.items()
            if record.state is HostState.READY and record.release != self._wanted.get(name)
            if ended.may_touch(name) and name not in ended.failed and name not in ended.left
        ]

    def _reached(self, host: str, change: str) -> bool:
        record = self._records.get(host)
        if record is None:
            return False
        if change == "stop":
            return record.state is HostState.OFF
        return record.state is HostState.READY and record.release == self._wanted.get(host)

    def left_out(self) -> dict[str, str]:
        """Hosts that are off because nobody asked for them, and the sentence that says so."""
        off = (name for name, record in self._records.items() if record.state is HostState.OFF)
        return {name: why for name in off if (why := self.scope.why(name))}


_TAKEN = "taken down by the operator"


def read_operation(journal: Journal) -> Operation | None:
    """The last `up` or `down`."""
    found = journal.operation()
    return None if found is None else Operation.model_validate(found)


def wanted_releases(site: Site, records: Mapping[str, HostRecord]) -> dict[str, str]:
    """The release that each host should run, by the pool that it serves."""
    pools = {name: serves(site.spec, record) for name, record in records.items()}
    return {name: site.releases[pool.name].key for name, pool in pools.items() if pool is not None}


def _summary(operation: Operation) -> str:
    text = f"`fleetctl {operation.kind}` is over"
    if operation.outcome == "halted":
        text = (
            f"`fleetctl {operation.kind}` began nothing more after {len(operation.failed)} hosts had failed"
        )
    parts = [
        f"{what} {', '.join(sorted(names)[:5])}{', ...' if len(names) > 5 else ''}"
        for what, names in (("failed:", list(operation.failed)), ("not done:", list(operation.left)))
        if names
    ]
    return "; ".join([text, *parts])
