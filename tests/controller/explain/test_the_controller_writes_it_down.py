"""The autoscaler over ten minutes of looks: what stands in the journal afterwards, pauses and restarts included."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_controller.autoscaler import Autoscaler
from fleet_controller.journal import HostRecord, Journal, Mark, Minute
from fleet_controller.lifecycle import HostState
from fleet_controller.observe import Observation
from fleet_controller.policies import PolicyState
from fleet_controller.policies.profile import Profile
from fleet_controller.spec import FleetSpec, PoolSpec, load
from fleet_controller.spec.scaling import LatencyTarget
from fleet_wire.balancer import BalancerStatus, PoolStatus
from fleet_wire.histogram import LatencyHistogram

T0 = 1_790_000_000 // 3600 * 3600
Looks = Callable[..., None]
TEXT = """\
fleet: demo
hosts:
  - {name: "h[1:3]", address: local}
models:
  - {name: tiny, source: tiny, entrypoint: "model:Tiny"}
pools:
  - name: default
    hosts: [h1, h2, h3]
    models: [tiny]
    scaling: {min_servers: 1, max_servers: 3, steps: [{when: "arrivals_per_s > 5", add: 1}]}
"""


@pytest.fixture
def spec(tmp_path: Path) -> FleetSpec:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.py").write_text("class Tiny: ...\n")
    (tmp_path / "fleet.yaml").write_text(TEXT)
    return load(tmp_path / "fleet.yaml")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


@pytest.fixture
def looks(spec: FleetSpec, journal: Journal) -> Looks:
    """looks(0, 120, rate=2): a controller that begins anew looks every 5 s from there to then; h1 serves."""
    counted = {"arrivals": 0}
    records = {name: HostRecord(name, "default") for name in ("h1", "h2", "h3")}
    records["h1"] = replace(records["h1"], state=HostState.READY)

    def run(
        since: int, until: int, rate: float = 2.0, answers: bool = True, pool: PoolSpec = spec.pools[0]
    ) -> None:
        autoscaler = Autoscaler(journal)
        for second in range(since, until, 5):
            counted["arrivals"] += int(rate * 5)
            at = float(T0 + second)
            counters = PoolStatus(
                name="default",
                arrivals=counted["arrivals"],
                completed=counted["arrivals"],
                errors=0,
                refused=0,
                in_flight=0,
                queued=0,
                latency=LatencyHistogram().to_wire(),
            )
            status = BalancerStatus(
                pid=1, started_at=T0 - 9.0, at=at, endpoint="", pools=[counters], backends=[]
            )
            seen = Observation(at, {}, status if answers else None, None)
            autoscaler.tick(spec, pool, seen, records, "up")

    return run


def test_ten_quiet_minutes_are_one_row_and_ten_counts(looks: Looks, journal: Journal) -> None:
    looks(0, 605)
    rows = journal.decisions("default", T0 + 1e6, limit=100)
    assert len(rows) <= 3  # the first look, the first with a rate, and that one confirmed
    assert rows[0].until >= T0 + 540 and rows[0].told["signal"]["arrivals_per_s"] == 2.0
    assert [minute.requests for minute in journal.traffic("default")] == [120] * 10


def test_a_surge_and_what_it_did_are_there_at_the_moment(looks: Looks, journal: Journal) -> None:
    looks(0, 60)
    looks(60, 120, rate=10.0)
    now, before = journal.decisions("default", T0 + 95.0)
    assert now.told["desired"] == 2 and "arrivals_per_s" in now.told["reason"]
    assert before.at < now.at <= T0 + 95 and now.told["signal"]["arrivals_per_s"] > 5


def test_a_blackout_is_written_down_with_what_it_blocks(looks: Looks, journal: Journal) -> None:
    looks(0, 60)
    looks(60, 120, answers=False)
    (row,) = journal.decisions("default", T0 + 115.0, limit=1)
    assert row.told["blocked_by"] == ["no fresh data"]
    assert any("nothing is scaled down" in sentence for sentence in row.told["diagnosis"])


def test_a_pause_is_written_down(looks: Looks, journal: Journal) -> None:
    looks(0, 60)
    journal.save_pool(replace(journal.pool("default"), paused=True))
    looks(60, 125)
    paused, before = journal.decisions("default", T0 + 120.0)
    assert paused.told["blocked_by"] == ["paused by an operator"] and paused.told["desired"] == 1
    assert paused.told["diagnosis"][0].startswith("paused by an operator: the number stays at 1")
    assert before.told["winner"] != "operator"
    assert paused.until == T0 + 120


def test_bursts_of_the_last_day_are_told_with_a_floor(
    looks: Looks, journal: Journal, spec: FleetSpec
) -> None:
    scaling = spec.pools[0].scaling.model_copy(update={"latency": LatencyTarget(target_ms=200)})
    promised = spec.pools[0].model_copy(update={"scaling": scaling})
    learned = Profile(proven=10.0, proven_ms=150.0, limit=10.0)  # requests/s of one server
    state = PolicyState(desired=1, profile=learned).model_dump(mode="json")
    journal.save_pool(replace(journal.pool("default"), policy_state=state))
    day = [Minute(T0 - 60 * n, 3000 if n % 10 == 0 else 60) for n in range(1, 121)]
    journal.keep_traffic("default", day, Mark("0@0", 0, T0 - 60.0))
    looks(0, 10, pool=promised)
    (row,) = journal.decisions("default", T0 + 60.0, limit=1)
    (told,) = (text for text in row.told["diagnosis"] if "can't be held by scaling" in text)
    # the oldest of the twelve has no minutes before it to be measured by
    assert "in 11 of 120 minutes, with 78% of the requests; min_servers 6 or more would hold it, " in told
    assert told.endswith("and the pool has 3 hosts")


def test_a_controller_killed_at_any_moment_loses_no_request(looks: Looks, journal: Journal) -> None:
    for since in range(0, 600, 35):
        looks(since, since + 35)
    looks(600, 670)
    counted = sum(minute.requests for minute in journal.traffic("default"))
    assert counted == 11 * 120 - 70  # all but what came before any minute was over
