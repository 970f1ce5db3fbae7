"""--limit, --parallel, --max-fail and a plan file under the whole loop, with a controller that is killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fleet_world.fate import with_scaling
from fleet_world.world import World

from fleet_controller.lifecycle import HostState
from fleet_controller.spec import FleetSpec

FleetOf = Callable[[int], FleetSpec]
OFF, READY = HostState.OFF, HostState.READY


class Ran:
    """A world in which an operator asked something with bounds; `most` is how many hosts were at work at once."""

    def __init__(self, spec: FleetSpec, seed: int = 7) -> None:
        self.world = World(spec, seed, power=False)
        self.world.lowest_floor(1)
        self.most = 0
        self.touched: set[str] = set()
        self.begun = False

    def ask(self, kind: str, **bounds: Any) -> str:
        basis = bounds.pop("basis", None)
        key = f"operation-{len(self.world.store.requests)}"
        args: dict[str, Any] = {"bounds": {"id": key, **bounds}} | ({"basis": basis} if basis else {})
        self.most, self.touched = 0, set()
        if self.begun:
            self.world.ask(kind, **args)
        else:  # the request lies there when the controller starts
            self.world.ask(kind, **args)
            self.world._start()
            self.world.baton.spawn("supervisor", self.world._supervise)
            self.begun = True
        return key

    def until(self, true: Callable[[], object], seconds: float = 900.0, kill_every: float = 0.0) -> None:
        world = self.world
        deadline, killed = world.baton.now + seconds, world.baton.now
        while not true():
            assert world.baton.now < deadline, (self.states(), world.store.facts.get("operation"))
            world.run(world.baton.now + 0.25)
            acting = {action.host for action in world.store.actions.values()}
            self.most, self.touched = max(self.most, len(acting)), self.touched | acting
            if kill_every and world.baton.now - killed >= kill_every:
                world.kill()
                killed = world.baton.now

    def over(self, key: str) -> bool:
        told = self.world.store.facts.get("operation") or {}
        return told.get("bounds", {}).get("id") == key and bool(told["outcome"])

    def end(self, key: str, kill_every: float = 0.0, seconds: float = 900.0) -> dict[str, Any]:
        self.until(lambda: self.over(key), seconds, kill_every)
        return dict(self.world.store.facts["operation"])

    def states(self) -> dict[str, str]:
        return {name: str(record.state) for name, record in self.world.store.hosts.items()}

    def of(self, *states: HostState) -> set[str]:
        return {name for name, record in self.world.store.hosts.items() if record.state in states}

    def rest(self, seconds: float) -> None:
        self.world.run(self.world.baton.now + seconds)


@pytest.fixture
def ran(fleet_of: FleetOf, request: pytest.FixtureRequest) -> Any:
    made: list[Ran] = []

    def make(hosts: int, low: int) -> Ran:
        made.append(Ran(with_scaling(fleet_of(hosts), min_servers=low)))
        return made[-1]

    yield make
    for one in made:
        one.world.close()


def with_version(spec: FleetSpec, version: str) -> FleetSpec:
    return spec.model_copy(
        update={"models": tuple(m.model_copy(update={"version": version}) for m in spec.models)}
    )


@pytest.mark.parametrize("kill_every", [0.0, 17.0])
def test_no_more_hosts_than_parallel_are_at_work_at_once(ran: Any, kill_every: float) -> None:
    fleet = ran(8, 8)
    told = fleet.end(fleet.ask("up", parallel=2), kill_every)
    assert told["outcome"] == "done" and not told["failed"]
    assert fleet.most == 2
    assert len(fleet.of(READY)) == 8
    fleet.end(fleet.ask("down", parallel=3), kill_every)
    assert 0 < fleet.most <= 3
    assert len(fleet.of(OFF)) == 8


@pytest.mark.parametrize("kill_every", [0.0, 17.0])
def test_only_the_hosts_of_the_limit_start_and_later_nothing_else_does(ran: Any, kill_every: float) -> None:
    fleet = ran(6, 4)
    told = fleet.end(fleet.ask("up", hosts=["h02", "h05"]), kill_every)
    assert told["outcome"] == "done"
    assert fleet.touched == {"h02", "h05"} == fleet.of(READY)
    fleet.rest(300.0)
    assert fleet.of(READY) == {"h02", "h05"}
    fleet.end(fleet.ask("up", hosts=["h01"]))
    fleet.rest(60.0)
    assert fleet.of(READY) == {"h01", "h02", "h05"}
    fleet.end(fleet.ask("up"))
    assert len(fleet.of(READY)) == 4


def test_a_release_reaches_the_hosts_of_the_limit_and_the_others_keep_theirs(ran: Any) -> None:
    fleet = ran(4, 4)
    fleet.end(fleet.ask("up"))
    before = {name: record.release for name, record in fleet.world.store.hosts.items()}
    # the file and the request at the same moment, or the controller would follow the file by itself
    fleet.world.edit(with_version(fleet.world.good, "2"))
    fleet.end(fleet.ask("up", hosts=["h03"]))
    fleet.rest(300.0)
    after = {name: record.release for name, record in fleet.world.store.hosts.items()}
    assert after == {**before, "h03": "release-2"}
    assert len(fleet.of(READY)) == 4
    fleet.end(fleet.ask("up", parallel=1))
    assert {record.release for record in fleet.world.store.hosts.values()} == {"release-2"}
    assert fleet.most == 1


@pytest.mark.parametrize("kill_every", [0.0, 23.0])
def test_after_so_many_failures_nothing_else_is_begun(ran: Any, kill_every: float) -> None:
    fleet = ran(8, 8)
    for name in ("h01", "h02", "h03"):
        fleet.world.hosts[name].starts_fail = True
    told = fleet.end(fleet.ask("up", parallel=1, max_fail=2), kill_every)
    assert told["outcome"] == "halted"
    assert set(told["failed"]) == {"h01", "h02"}
    left = set(told["left"])
    assert len(left) == 6 and left == fleet.of(OFF)
    fleet.rest(300.0)  # and it stays so: only the failed ones are tried again, as ever
    assert left <= fleet.of(OFF)
    for host in fleet.world.hosts.values():
        host.starts_fail = False
    assert fleet.end(fleet.ask("up"))["outcome"] == "done"
    assert len(fleet.of(READY)) == 8


def test_a_share_of_the_hosts_counts_like_their_number(ran: Any) -> None:
    fleet = ran(10, 10)
    for name in ("h02", "h04", "h06"):
        fleet.world.hosts[name].starts_fail = True
    told = fleet.end(fleet.ask("up", parallel=1, max_fail_percent=20.0))
    assert told["outcome"] == "halted" and len(told["failed"]) == 2


def test_a_bad_release_stops_at_the_first_host_and_the_others_serve(ran: Any) -> None:
    fleet = ran(4, 4)
    fleet.end(fleet.ask("up"))
    for host in fleet.world.hosts.values():
        host.starts_fail = True
    fleet.world.edit(with_version(fleet.world.good, "2"))
    told = fleet.end(fleet.ask("up", max_fail=1))
    assert told["outcome"] == "halted" and len(told["failed"]) == 1
    fleet.rest(600.0)
    serving = {n for n, r in fleet.world.store.hosts.items() if r.state is READY and r.release == "release-1"}
    assert len(serving) == 3
    assert serving == set(told["left"])


def test_a_down_that_halts_leaves_the_rest_serving(ran: Any) -> None:
    fleet = ran(5, 5)
    fleet.end(fleet.ask("up"))
    fleet.world.hosts["h01"].refuses = True
    told = fleet.end(fleet.ask("down", parallel=1, max_fail=1))
    assert told["outcome"] == "halted"
    assert set(told["left"]) == {"h02", "h03", "h04", "h05"} and set(told["failed"]) == {"h01"}
    fleet.rest(200.0)
    assert set(told["left"]) <= fleet.of(READY)
    fleet.world.hosts["h01"].refuses = False
    fleet.ask("down")
    fleet.until(lambda: len(fleet.of(OFF)) == 5)


def test_hosts_that_are_taken_down_stay_off_and_another_takes_their_place(ran: Any) -> None:
    fleet = ran(5, 2)
    fleet.end(fleet.ask("up"))
    first = sorted(fleet.of(READY))
    told = fleet.end(fleet.ask("down", hosts=first))
    assert told["outcome"] == "done" and fleet.touched == set(first)
    fleet.until(lambda: len(fleet.of(READY)) == 2)
    fleet.rest(200.0)
    assert fleet.of(READY).isdisjoint(first)
    fleet.end(fleet.ask("up"))
    fleet.rest(100.0)
    assert len(fleet.of(READY)) == 2  # taken in again, and not needed


@pytest.mark.parametrize("kill_every", [0.0, 17.0])
def test_a_plan_does_what_it_says_to_the_hosts_it_names(ran: Any, kill_every: float) -> None:
    fleet = ran(6, 3)
    key = fleet.ask("up", planned={"h02": "start", "h04": "start", "h06": "start"})
    assert fleet.end(key, kill_every)["left"] == []
    assert fleet.touched == {"h02", "h04", "h06"} == fleet.of(READY)
    fleet.rest(200.0)
    assert fleet.of(READY) == {"h02", "h04", "h06"}


def test_a_planned_host_that_fails_is_told_and_no_other_takes_its_place_meanwhile(ran: Any) -> None:
    fleet = ran(4, 2)
    fleet.world.hosts["h03"].starts_fail = True
    told = fleet.end(fleet.ask("up", planned={"h02": "start", "h03": "start"}))
    assert fleet.touched == {"h02", "h03"}
    assert set(told["failed"]) == {"h03"} and told["outcome"] == "done"
    # what follows is the controller's ordinary work
    fleet.until(lambda: len(fleet.of(READY)) == 2)


def test_what_an_operator_drains_goes_while_an_operation_is_for_others(ran: Any) -> None:
    fleet = ran(4, 2)
    fleet.end(fleet.ask("up"))
    [one, *_] = sorted(fleet.of(READY))
    slow = next(name for name in sorted(fleet.world.hosts) if name not in fleet.of(READY))
    fleet.world.hosts[slow].blackholed = True
    fleet.ask("up", hosts=[slow], planned={slow: "start"})
    fleet.world.ask("drain", host=one)
    fleet.until(lambda: fleet.world.store.hosts[one].state is OFF)


def test_a_plan_that_no_longer_fits_is_refused_and_nothing_moves(ran: Any) -> None:
    fleet = ran(3, 2)
    fleet.end(fleet.ask("up"))
    basis = {
        "fleet": "world",
        "file": "another",
        "goal": "up",
        "releases": {"default": "release-1"},
        "desired": {"default": 2},
        "hosts": {name: {"state": "off"} for name in fleet.world.hosts},
    }
    before = fleet.states()
    key = fleet.ask("up", planned={"h01": "stop"}, basis=basis)
    request = max(fleet.world.store.requests)
    fleet.until(lambda: fleet.world.store.requests[request][1].done)
    answer = fleet.world.store.requests[request][1]
    assert not answer.ok
    assert "fleet.yaml was changed" in answer.message
    assert "was off and is ready now" in answer.message
    fleet.rest(60.0)
    assert fleet.states() == before and not fleet.over(key)
