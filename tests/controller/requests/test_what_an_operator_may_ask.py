"""Each request: what it changes, what it says, and when it is refused without changing anything."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fleet_controller.journal import Answer, Journal
from fleet_controller.lifecycle import HostState
from fleet_controller.requests import Refused, take_in
from fleet_controller.spec import FleetSpec

Ask = Callable[..., Answer]


@pytest.mark.parametrize(
    ("kind", "args", "words"),
    [
        ("scale", {"pool": "one", "servers": 3}, "pool one runs 1 to 2 servers, not 3"),
        ("scale", {"pool": "one", "servers": 0}, "pool one runs 1 to 2 servers, not 0"),
        ("scale", {"pool": "three", "servers": 1}, "there is no pool 'three'; the pools are one, two"),
        ("scale", {"servers": 1}, "there is no pool None; the pools are one, two"),
        ("drain", {"host": "h9"}, "there is no host 'h9' in fleet.yaml"),
        ("drain", {}, "there is no host"),
        ("uncordon", {"host": "h9"}, "there is no host 'h9'"),
        ("pause", {"pool": "three"}, "there is no pool 'three'"),
        ("dance", {}, "does not know the request 'dance'"),
    ],
)
def test_refused_with_what_can_be_done_and_nothing_changes(
    ask: Ask, journal: Journal, kind: str, args: dict[str, Any], words: str
) -> None:
    journal.set_goal("up")
    before = (journal.hosts(), journal.pool("one"), journal.pool("two"), journal.events())
    answer = ask(kind, **args)
    assert not answer.ok
    assert words in answer.message
    assert (journal.hosts(), journal.pool("one"), journal.pool("two"), journal.events()) == before


def test_scale_sets_the_number_and_tells(ask: Ask, journal: Journal) -> None:
    assert ask("scale", pool="one", servers=2) == Answer(True, True, "pool one goes to 2")
    pool = journal.pool("one")
    assert pool.desired == 2
    assert pool.last_decision is not None
    assert (pool.last_decision["winner"], pool.last_decision["at"]) == ("operator", 5.0)
    assert journal.pool("two").desired is None
    [event] = journal.events()
    assert (event.kind, event.pool, event.data) == ("scale", "one", {"from": None, "to": 2})


def test_a_fleet_that_is_down_is_not_scaled(ask: Ask, journal: Journal) -> None:
    ask("down")
    assert "start it first: fleetctl up" in ask("scale", pool="one", servers=1).message


def test_up_and_down_are_told_once(ask: Ask, journal: Journal) -> None:
    for kind in ("up", "up", "down", "down", "up"):
        assert ask(kind).ok
    assert [e.kind for e in journal.events()] == ["up", "down", "up"]


def test_up_means_try_again_now(ask: Ask, journal: Journal) -> None:
    journal.move("h1", HostState.FAILED, "", 2.0, failures=7, retry_at=9e9)
    ask("up")
    record = journal.hosts()["h1"]
    assert (record.failures, record.retry_at) == (0, 0.0)


def test_down_forgets_numbers_and_what_has_nothing_of_ours(ask: Ask, journal: Journal) -> None:
    ask("scale", pool="one", servers=2)
    journal.move("h1", HostState.FAILED, "", 2.0, error="x", retry_at=9e9)
    journal.move("h2", HostState.UNREACHABLE, "", 2.0, action_id="there", retry_at=9e9)
    ask("down")
    assert journal.pool("one").desired is None
    hosts = journal.hosts()
    assert (hosts["h1"].state, hosts["h1"].error) == (HostState.OFF, None)
    assert (hosts["h2"].state, hosts["h2"].retry_at) == (
        HostState.UNREACHABLE,
        0.0,
    )  # to be looked for, and stopped


@pytest.mark.parametrize("state", [HostState.FAILED, HostState.UNREACHABLE])
def test_down_leaves_no_machine_on_that_was_switched_on_for_nothing(
    ask: Ask, journal: Journal, state: HostState
) -> None:
    journal.move("h4", state, "start failed", 2.0, error="x", retry_at=9e9)
    ask("down")
    record = journal.hosts()["h4"]
    assert (record.state, record.retry_at) == (state, 0.0)  # to be stopped, which switches it off


def test_drain_and_uncordon(ask: Ask, journal: Journal) -> None:
    journal.amend("h1", failures=3, retry_at=9e9)
    assert ask("drain", host="h1").ok
    assert journal.hosts()["h1"].cordoned
    assert ask("uncordon", host="h1").ok
    record = journal.hosts()["h1"]
    assert (record.cordoned, record.failures, record.retry_at) == (False, 0, 0.0)
    assert [(e.kind, e.host, e.pool) for e in journal.events()] == [
        ("cordon", "h1", "one"),
        ("uncordon", "h1", "one"),
    ]


def test_a_drain_says_what_it_means_where_the_host_is_out_of_reach(ask: Ask, journal: Journal) -> None:
    journal.move("h1", HostState.UNREACHABLE, "does not answer", 2.0)
    said = ask("drain", host="h1")
    assert said.ok and "h1 is out of reach: it gets no new requests, is stopped once" in said.message
    assert "fleetctl uncordon h1" in said.message
    assert journal.hosts()["h1"].cordoned


def test_pause_one_or_all(ask: Ask, journal: Journal) -> None:
    assert ask("pause", pool="two").message == "autoscaling is paused in two"
    assert (journal.pool("one").paused, journal.pool("two").paused) == (False, True)
    assert ask("pause").message == "autoscaling is paused in one, two"
    assert [e.pool for e in journal.events()] == ["two", "one"]
    assert ask("resume").message == "autoscaling goes on in one, two"
    assert not journal.pool("one").paused


def test_a_running_host_that_left_fleet_yaml_is_named_and_kept(spec: FleetSpec, journal: Journal) -> None:
    journal.move("h1", HostState.BOOTING, "", 2.0)
    journal.move("h2", HostState.UNREACHABLE, "", 2.0)
    smaller = spec.model_copy(update={"hosts": spec.hosts[2:]})
    with pytest.raises(
        Refused, match=r"fleet.yaml no longer has h1 \(booting\), h2 \(unreachable\); put them back"
    ):
        take_in(smaller, journal, 3.0)
    assert sorted(journal.hosts()) == ["h1", "h2", "h3", "h4"]


def test_a_host_that_is_off_may_leave_and_a_new_one_may_come(spec: FleetSpec, journal: Journal) -> None:
    take_in(spec.model_copy(update={"hosts": spec.hosts[1:]}), journal, 3.0)
    assert sorted(journal.hosts()) == ["h2", "h3", "h4"]
    take_in(spec, journal, 4.0)
    assert journal.hosts()["h1"].state is HostState.OFF


def test_a_pool_saved_before_keeps_what_scale_does_not_touch(ask: Ask, journal: Journal) -> None:
    journal.save_pool(replace(journal.pool("one"), learned={"x": 1}, paused=True))
    ask("scale", pool="one", servers=2)
    assert (journal.pool("one").learned, journal.pool("one").paused) == ({"x": 1}, True)
