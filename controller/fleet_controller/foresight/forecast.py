"""Forecast: how the hosts will be once everything that plan wants is done. PURE.

Plan says what to begin now, and looks again when that is done. So the forecast takes each step as done at once and
well, and asks plan again, until it wants nothing more: the controller's own code, over records that exist nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fleet_controller.lifecycle import GOING_DOWN, STARTING_UP, HostState
from fleet_controller.plan import Step
from fleet_controller.plan.steps import IN_PLACE
from fleet_controller.plan.tiers import Rank
from fleet_controller.records import HostRecord

Records = Mapping[str, HostRecord]
Plan = Callable[[Records], tuple[Sequence[Rank], Sequence[Step]]]

# A plan that wants something new after so many rounds is told as far as it was followed.
MOST_ROUNDS = 500


@dataclass(frozen=True)
class Forecast:
    """`before` and `after` are the hosts when what is under way is over, and when everything is.

    `steps` are all that were taken, in order. `complete` False: there would be more.
    """

    before: Records
    after: Records
    steps: tuple[Step, ...]
    complete: bool = True
    under_way: Mapping[str, HostState] = field(default_factory=dict)


def forecast(records: Records, releases: Mapping[str, str], plan: Plan, now: float) -> Forecast:
    """Follow `plan` to its end; `releases` by pool."""
    under_way = {n: r.state for n, r in records.items() if r.state in STARTING_UP | GOING_DOWN}
    before = {name: _arrived(record, releases, now) for name, record in records.items()}
    current, taken = dict(before), list[Step]()
    for _ in range(MOST_ROUNDS):
        ranks, steps = plan(current)
        wanted = [step for step in steps if step.kind != "inspect"]
        if not wanted:
            return Forecast(before, current, tuple(taken), under_way=under_way)
        for step in wanted:
            taken += _take(step, ranks, current, releases, now)
    return Forecast(before, current, tuple(taken), False, under_way)


def _take(
    step: Step, ranks: Sequence[Rank], current: dict[str, HostRecord], releases: Mapping[str, str], now: float
) -> list[Step]:
    """Have `step` done. Hosts that are replaced in place go one after the other; here all that will at once."""
    if step.kind == "start":
        current[step.host] = _ready(current[step.host], step.pool, releases, now)
        return [step]
    if step.reason != IN_PLACE:
        current[step.host] = _off(current[step.host], now)
        return [step]
    taken = []
    for name in _in_place(next(rank for rank in ranks if rank.name == step.pool)):
        current[name] = _ready(current[name], step.pool, releases, now)
        taken += [replace(step, host=name), Step("start", name, step.pool, step.reason)]
    return taken


def _in_place(rank: Rank) -> list[str]:
    """The outdated hosts that have to be replaced until enough run the wanted release."""
    view = rank.view
    fresh = sum(view.record(h).release == view.release for h in view.serving())
    outdated = [
        h.name
        for h in view.hosts
        if (r := view.record(h)).state is HostState.READY and not r.cordoned and r.release != view.release
    ]
    return outdated[: max(1, view.desired - fresh)]


def _arrived(record: HostRecord, releases: Mapping[str, str], now: float) -> HostRecord:
    """The host once what is under way there is done."""
    if record.state in GOING_DOWN:
        return _off(record, now)
    if record.state in STARTING_UP:
        return _ready(record, record.pool or "", releases, now)
    return record


def _ready(record: HostRecord, pool: str, releases: Mapping[str, str], now: float) -> HostRecord:
    return replace(
        record,
        state=HostState.READY,
        pool=pool,
        release=releases.get(pool),
        since=now,
        failures=0,
        retry_at=0.0,
        action_id="planned",
    )


def _off(record: HostRecord, now: float) -> HostRecord:
    return replace(record, state=HostState.OFF, release=None, since=now, action_id=None)
