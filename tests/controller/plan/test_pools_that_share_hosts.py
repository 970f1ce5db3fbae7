"""Who gets which host where pools share some: as stories of a few ticks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleet_controller.lifecycle import HostState
from fleet_controller.plan import Step

Sharing = Callable[..., Any]
FLEET: dict[str, dict[str, Any]] = {
    "interactive": {"hosts": "abcd", "floor": 1},
    "batch": {"hosts": "cdef", "tier": "batch", "floor": 1},
}


def short(found: list[Step]) -> list[str]:
    return [f"{s.pool}: {s.kind} {s.host}" for s in found]


@pytest.fixture
def full(sharing: Sharing) -> Any:
    """interactive has a and b, batch c to f: nothing is free."""
    world = sharing(FLEET)
    world.run(10, interactive=2, batch=4)
    assert (world.has("interactive"), world.has("batch")) == ("ab", "cdef")
    return world


def test_a_free_host_goes_to_the_higher_tier_first(sharing: Sharing) -> None:
    world = sharing({"batch": {"hosts": "ab", "tier": "batch"}, "interactive": {"hosts": "ab"}})
    assert short(world.run(1, interactive=1, batch=1)) == ["interactive: start a", "batch: start b"]


def test_of_one_tier_the_first_in_the_file_is_first(sharing: Sharing) -> None:
    world = sharing({"one": {"hosts": "a"}, "two": {"hosts": "a"}})
    assert short(world.run(9, one=1, two=1)) == ["one: start a"]


def test_a_host_of_one_tier_is_borrowed_by_nobody(sharing: Sharing) -> None:
    world = sharing({"one": {"hosts": "a"}, "two": {"hosts": "a"}})
    assert short(world.run(9, two=1)) == ["two: start a"]
    assert world.run(9, one=1) == []


def test_but_a_pool_that_has_too_many_gives_up_what_the_other_one_lacks(sharing: Sharing) -> None:
    world = sharing({"one": {"hosts": "abc"}, "two": {"hosts": "c"}})
    world.run(30, one=3)
    assert world.run(9, one=2, two=1) == [
        Step("stop", "c", "one", "gave c to two: one needs 2, has 3"),
        Step("start", "c", "two", "the decision"),
    ]


def test_the_higher_tier_borrows_when_no_free_host_is_left(full: Any) -> None:
    assert full.run(9, interactive=3) == [
        Step("stop", "c", "batch", "borrowed c from batch: interactive needs 3, has 2, no free host is left"),
        Step(
            "start",
            "c",
            "interactive",
            "borrowed c from batch: interactive needs 3, has 2, no free host is left",
        ),
    ]
    assert (full.has("interactive"), full.has("batch")) == ("abc", "def")
    assert full.run(50) == []


def test_while_it_is_drained_nothing_else_is_borrowed(full: Any) -> None:
    full.takes = 20
    assert short(full.run(19, interactive=3)) == ["batch: stop c"]


def test_the_lender_keeps_its_floor(sharing: Sharing) -> None:
    world = sharing(
        {"interactive": {"hosts": "abcd"}, "batch": {"hosts": "abcd", "tier": "batch", "floor": 3}}
    )
    world.run(9, batch=4)
    assert short(world.run(50, interactive=4)) == ["batch: stop a", "interactive: start a"]


@pytest.mark.parametrize("spared", [{"protect": True}, {}])
def test_neither_protected_nor_cordoned_hosts_are_lent(sharing: Sharing, spared: dict[str, Any]) -> None:
    world = sharing(
        {"interactive": {"hosts": "ab"}, "batch": {"hosts": "ab", "tier": "batch"}}, {"a": spared}
    )
    world.run(9, batch=2)
    world.records["a"] = replace(world.records["a"], cordoned=not spared)
    world.desired["batch"] = 1
    lent = [s for s in world.run(9, interactive=2) if s.reason.startswith("borrowed")]
    assert short(lent) == ["batch: stop b", "interactive: start b"]


def test_a_busy_host_is_not_lent(full: Any) -> None:
    full.work |= dict.fromkeys("cd", ("look", 99))
    assert full.run(9, interactive=3) == []


def test_one_host_is_lent_once(sharing: Sharing) -> None:
    world = sharing(
        {
            "one": {"hosts": "ac"},
            "two": {"hosts": "bcd"},
            "batch": {"hosts": "cd", "tier": "batch", "floor": 1},
        }
    )
    world.run(30, one=1, two=1, batch=2)
    assert short(world.run(1, one=2, two=2, batch=1)) == ["batch: stop c"]
    assert short(world.run(30)) == ["one: start c"]


def test_a_pool_that_has_not_decided_yet_borrows_and_lends_nothing(full: Any) -> None:
    full.undecided = {"batch"}
    assert full.run(9, interactive=3) == []
    full.undecided = {"interactive"}
    assert full.run(9) == []


def test_one_of_the_lenders_hosts_at_a_time(full: Any) -> None:
    full.takes = 3
    found = full.run(30, interactive=4)
    assert short(found) == ["batch: stop c", "interactive: start c", "batch: stop d", "interactive: start d"]
    assert (full.has("interactive"), full.has("batch")) == ("abcd", "ef")


def test_what_was_borrowed_goes_back_first_when_the_pressure_is_gone(full: Any) -> None:
    full.run(30, interactive=3)
    found = full.run(30, interactive=2)
    assert found == [
        Step("stop", "c", "interactive", "gave c back to batch: interactive needs 2, has 3"),
        Step("start", "c", "batch", "the decision"),
    ]


def test_but_not_within_the_cooldown_and_nobody_goes_in_its_place(full: Any) -> None:
    full.run(6, interactive=3)
    assert full.has("interactive") == "abc"
    begun = full.now
    assert short(full.run(30, interactive=2)) == ["interactive: stop c", "batch: start c"]
    assert full.records["c"].since - begun >= 60.0 - 6 * 5.0


def test_a_lender_that_wants_nothing_back_changes_nothing_in_the_order(full: Any) -> None:
    full.run(30, interactive=3, batch=3)
    assert short(full.run(30, interactive=2)) == ["interactive: stop a"]


def test_a_free_host_of_its_own_takes_over_from_a_borrowed_one(full: Any) -> None:
    full.records["b"] = replace(full.records["b"], state=HostState.OFF, cordoned=True)
    full.run(40, interactive=2)
    assert (full.has("interactive"), full.has("batch")) == ("ac", "def")
    full.records["b"] = replace(full.records["b"], cordoned=False)
    found = full.run(60)
    assert short(found) == ["interactive: start b", "interactive: stop c", "batch: start c"]
    assert (full.has("interactive"), full.has("batch")) == ("ab", "cdef")


def test_a_model_that_does_not_start_costs_the_lender_one_server_and_no_more(full: Any) -> None:
    full.broken = {("interactive", host) for host in "abcdef"}
    found = full.run(6, interactive=3) + full.run(200, interactive=4)
    assert short([s for s in found if s.kind == "stop"]) == ["batch: stop c"]
    assert full.has("batch") == "def"


def test_a_host_that_failed_for_one_pool_is_free_for_another(sharing: Sharing) -> None:
    world = sharing({"interactive": {"hosts": "a"}, "batch": {"hosts": "a", "tier": "batch"}})
    world.broken = {("batch", "a")}
    world.run(30, batch=1)
    assert world.records["a"].state is HostState.FAILED
    world.records["a"] = replace(world.records["a"], retry_at=0.0)
    assert short(world.run(9, interactive=1))[0] == "interactive: start a"
    assert world.has("interactive") == "a"


def test_a_rollout_borrows_nothing(full: Any) -> None:
    for host in "ab":
        full.records[host] = replace(full.records[host], release="old")
    found = full.run(60)
    assert short(found) == [f"interactive: {kind} {host}" for host in "ab" for kind in ("stop", "start")]


def test_hosts_out_of_sight_are_no_reason_to_borrow_while_all_are(full: Any) -> None:
    for host in "ab":
        full.records[host] = replace(full.records[host], state=HostState.UNREACHABLE, retry_at=2e9)
    assert full.run(9) == []


def test_down_stops_each_host_once(full: Any) -> None:
    full.run(9, interactive=3)
    assert sorted(s.host for s in full.plan("down")) == list("abcdef")
