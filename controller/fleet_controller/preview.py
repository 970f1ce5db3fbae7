"""What `fleetctl up` would change, host by host, without doing it: the same code as the loop's, one stage fewer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import time

from fleet_controller.actuate import Site, open_site
from fleet_controller.course import wanted_releases
from fleet_controller.door import daemons
from fleet_controller.door.admin import FrontDoor
from fleet_controller.foresight.basis import Basis
from fleet_controller.foresight.changes import Change, Totals, changes, totals
from fleet_controller.foresight.forecast import Forecast, Records, forecast
from fleet_controller.foresight.makeup import differences
from fleet_controller.journal import HostRecord, Journal
from fleet_controller.lifecycle import STARTING_UP, HostState
from fleet_controller.observe import Observation, Observer
from fleet_controller.operation import Scope
from fleet_controller.plan import Step
from fleet_controller.plan.tiers import Rank, fleet_steps
from fleet_controller.policies.schedule import bounds
from fleet_controller.premises import read_basis
from fleet_controller.releasebook import ReleaseBook, made_of
from fleet_controller.spec import FleetSpec, PoolSpec
from fleet_controller.statefolder import StateFolder
from fleet_controller.view import pool_rank, pool_view


@dataclass(frozen=True)
class PoolPlan:
    """A pool as it is and as it is wanted."""

    name: str
    desired: int
    ready: int
    starting: int
    reason: str


@dataclass(frozen=True)
class HostPlan:
    """A host and what becomes of it. `differs`: what of the release, in words.

    `models` are (name, version) pairs, `power` its state by its power control, each before and after; None: not known,
    or it has none.
    """

    change: Change
    differs: tuple[str, ...]
    models: tuple[tuple[tuple[str, str], ...], tuple[tuple[str, str], ...]]
    power: tuple[str | None, str | None]


@dataclass(frozen=True)
class Plan:
    """What would change. `steps` in the order in which they would be begun; `before` and `after` are the totals.

    `lost`: hosts that can't be told now, and why. `complete` False: more would follow.
    """

    pools: tuple[PoolPlan, ...]
    steps: tuple[Step, ...]
    hosts: tuple[HostPlan, ...]
    before: Totals
    after: Totals
    lost: Mapping[str, str]
    basis: Basis
    complete: bool


def preview(
    spec: FleetSpec,
    journal: Journal,
    folder: StateFolder,
    file: str = "",
    limit: Sequence[str] | None = None,
) -> Plan:
    """What `up` would do now, to `limit` alone where that is given. Asks the agents that are known to run, and changes
    nothing. `file` is the checksum of fleet.yaml.

    Raises HostFailure when a model's release can't be built.
    """
    now = time()
    site = open_site(spec, folder)
    basis = read_basis(site, file, journal)
    known = {h.name: HostRecord(h.name) for h in spec.hosts if spec.pools_of(h.name)} | journal.hosts()
    records = {name: _tried_again(record) for name, record in known.items()}
    admin = str(daemons.balancer(spec, folder).ready().get("admin", spec.balancer.admin))
    door = FrontDoor(lambda: admin, folder.token("balancer"))
    with ThreadPoolExecutor(max_workers=spec.controller.parallel) as executor:
        observation = Observer(executor).look(site.targets(records), door, now)
    running = journal.goal() == "up"
    scope = Scope()
    if limit is not None:
        scope = Scope.model_validate(journal.scope()).asked_for(frozenset(limit), records, running)
        if running:  # what is off beyond the limit is not started by this `up`
            off = {n for n, r in records.items() if r.state is HostState.OFF}
            scope = scope.without(off - set(limit))
    wanted = _Wanted(site, journal, observation, now, running)
    seen = scope.seen(records, wanted_releases(site, records))
    releases = {name: release.key for name, release in site.releases.items()}
    seen_through = forecast(seen, releases, wanted.plan, now)
    found = [_as_it_is(change, known, scope) for change in changes(seen_through)]
    pictures = {h["name"]: h for h in (journal.status() or {}).get("hosts", [])}
    return Plan(
        tuple(wanted.pool(pool, seen) for pool in spec.pools),
        seen_through.steps,
        tuple(_host(change, site, folder, observation, pictures) for change in found),
        totals(spec, seen_through.before.values()),
        totals(spec, seen_through.after.values()),
        _lost(seen_through, observation),
        basis,
        seen_through.complete,
    )


def moved(spec: FleetSpec, journal: Journal, folder: StateFolder, file: str, basis: Basis) -> list[str]:
    """What a plan that was made on `basis` no longer fits. Raises HostFailure when a release can't be built."""
    return basis.moved(read_basis(open_site(spec, folder), file, journal))


class _Wanted:
    """What plan wants of records that may be ours alone."""

    def __init__(
        self, site: Site, journal: Journal, observation: Observation, now: float, running: bool
    ) -> None:
        self._site = site
        self._observation = observation
        self._now = now
        self._records = {pool.name: journal.pool(pool.name) for pool in site.spec.pools}
        self._running = running

    def desired(self, pool: PoolSpec) -> tuple[int, str]:
        known, now = self._records[pool.name], bounds(pool.scaling, self._now)
        if known.desired is None or not self._running:
            return now.low, f"min_servers {now.low}"
        held = min(max(known.desired, now.low), now.high)
        return held, f"{held} servers were wanted last"

    def plan(self, records: Records) -> tuple[list[Rank], list[Step]]:
        ranks = []
        for pool in self._site.spec.pools:
            desired, reason = self.desired(pool)
            learned = self._records[pool.name].learned
            view = pool_view(
                self._site.spec,
                pool,
                records,
                desired,
                self._site.releases[pool.name].key,
                reason,
                frozenset(),
                self._observation,
                speeds=learned.get("speeds"),
            )
            ranks.append(pool_rank(self._site.spec, pool, view, self._observation, decided=True))
        return ranks, fleet_steps(ranks, "up", self._now)

    def pool(self, pool: PoolSpec, records: Records) -> PoolPlan:
        desired, reason = self.desired(pool)
        view = next(rank.view for rank in self.plan(records)[0] if rank.name == pool.name)
        return PoolPlan(pool.name, desired, view.count([HostState.READY]), view.count(STARTING_UP), reason)


def _tried_again(record: HostRecord) -> HostRecord:
    """As `up` sees to it: what failed is tried at once."""
    if record.state is HostState.FAILED:
        return replace(record, retry_at=0.0, failures=0)
    return record


def _as_it_is(change: Change, known: Mapping[str, HostRecord], scope: Scope) -> Change:
    """With the release that really runs where the host keeps it, and the reason why it is left alone."""
    record = known[change.host]
    if change.action == "none":
        kept = record.release if change.release[0] is not None else None
        why = change.reason
        if not why and (record.cordoned or not scope.has(change.host)):
            why = "drained by the operator" if record.cordoned else "outside --limit"
        elif not why and scope.kept.get(change.host) not in (None, change.release[1]):
            why = "outside --limit, keeps its release"
        return replace(change, release=(kept, kept), reason=why)
    return replace(
        change, release=(record.release if change.release[0] is not None else None, change.release[1])
    )


def _host(
    change: Change,
    site: Site,
    folder: StateFolder,
    observation: Observation,
    pictures: Mapping[str, Mapping[str, object]],
) -> HostPlan:
    before, after = change.release
    differs: list[str] = []
    if before != after and before is not None and change.pool[1] is not None:
        differs = differences(ReleaseBook(folder).read(before), made_of(site, change.pool[1]))
    report = observation.hosts.get(change.host)
    told = () if report is None or report.status is None else report.status.models
    now = tuple((model.name, model.version) for model in told)
    then = now if change.action == "none" else ()
    if change.action in ("start", "replace") and change.pool[1] is not None:
        then = tuple((m, site.spec.model(m).version) for m in site.spec.pool(change.pool[1]).models)
    return HostPlan(change, tuple(differs), (now, then), _power(change, site, pictures))


def _power(
    change: Change, site: Site, pictures: Mapping[str, Mapping[str, object]]
) -> tuple[str | None, str | None]:
    if site.spec.host(change.host).power.driver == "none":
        return None, None
    picture = pictures.get(change.host, {}).get("power")
    known = picture.get("state") if isinstance(picture, dict) else None
    if known not in ("on", "off"):
        known = "on" if change.state in (HostState.READY, *STARTING_UP) else None
    then = {"start": "on", "replace": "on", "stop": "off"}.get(change.action)
    return known, then or known


def _lost(seen: Forecast, observation: Observation) -> dict[str, str]:
    """Hosts of which nothing is heard: what they run can't be told."""
    found = {}
    for name, record in seen.before.items():
        report = observation.hosts.get(name)
        if record.state is HostState.UNREACHABLE:
            found[name] = record.error or "can't be reached"
        elif record.state is HostState.READY and report is not None and report.status is None:
            found[name] = report.error or "does not answer"
    return found
