"""What `fleetctl up FILE` accepts, and what it says of everything else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fleet_controller.foresight.basis import Basis, stale
from fleet_controller.foresight.planfile import BadPlan, opened, sealed

BASIS: dict[str, Any] = {
    "fleet": "demo",
    "file": "f" * 64,
    "goal": "up",
    "releases": {"default": "key-1"},
    "desired": {"default": 2},
    "hosts": {
        "a": {"state": "ready", "pool": "default", "release": "key-1", "out": False},
        "b": {"state": "off", "pool": None, "release": None, "out": False},
    },
    "asked": "",
}
PLAN: dict[str, Any] = {
    "schema": "fleetctl/plan/v1",
    "fleet": "demo",
    "limit": None,
    "changes": [{"host": "a", "action": "none"}, {"host": "b", "action": "start"}],
    "complete": True,
    "basis": BASIS,
}


def said(document: Any, fleet: str = "demo") -> str:
    with pytest.raises(BadPlan) as bad:
        opened(document if isinstance(document, str) else json.dumps(document), "p.json", fleet)
    assert "\n" not in str(bad.value)
    return str(bad.value)


def test_a_whole_one_says_what_to_do_and_what_it_rests_on() -> None:
    found = opened(json.dumps(sealed(PLAN), indent=4), "p.json", "demo")
    assert dict(found.planned) == {"b": "start"}
    assert found.basis == Basis.model_validate(BASIS)
    assert found.limit is None


def test_what_is_wrong_with_a_file_is_one_message_that_says_what_to_do() -> None:
    whole = sealed(PLAN)
    assert "is not a whole plan file" in said(json.dumps(whole)[:-40])
    assert "is not a whole plan file" in said("")
    assert "is no plan of fleetctl" in said({"schema": "fleetctl/status/v1"})
    assert "is no plan of fleetctl" in said("[1, 2]")
    assert "written by another version of fleetctl (fleetctl/plan/v7" in said(
        sealed({**PLAN, "schema": "fleetctl/plan/v7"})
    )
    assert "was changed after `fleetctl plan` wrote it" in said({**whole, "limit": ["a"]})
    assert "a plan for the fleet demo, and this is other" in said(whole, "other")
    assert "does not tell all" in said(sealed({**PLAN, "complete": False}))
    for broken in (whole, {**PLAN, "schema": "x"}):
        assert "fleetctl plan --out p.json" in said({**broken, "limit": 3})


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_edit_goes_unnoticed(data: st.DataObject) -> None:
    text = json.dumps(sealed(PLAN))
    at = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.characters(codec="ascii").filter(lambda c: c != text[at]))
    edited = text[:at] + other + text[at + 1 :]
    try:
        found = opened(edited, "p.json", "demo")
    except BadPlan:
        return
    assert found == opened(text, "p.json", "demo")  # blanks between words, say


MOVES: list[tuple[dict[str, Any], str]] = [
    ({"file": "0" * 64}, "fleet.yaml was changed"),
    ({"goal": "down"}, "the fleet was up and is down now"),
    ({"releases": {"default": "key-2"}}, "pool default: release key-2 would be installed, not key-1"),
    ({"desired": {"default": 3}}, "pool default wanted 2 servers and wants 3 servers now"),
    ({"asked": "only a"}, "another `up` or `down` has asked for other hosts since"),
    ({"hosts": {**BASIS["hosts"], "b": {"state": "booting"}}}, "b was off and is booting now"),
    ({"hosts": {"a": BASIS["hosts"]["a"]}}, "b is no longer in fleet.yaml"),
    (
        {"hosts": {**BASIS["hosts"], "a": {**BASIS["hosts"]["a"], "release": "key-0"}}},
        "a ran release key-1 and runs key-0 now",
    ),
    ({"hosts": {**BASIS["hosts"], "b": {"state": "off", "out": True}}}, "b was drained by an operator"),
]


@pytest.mark.parametrize(("changes", "words"), MOVES, ids=[words for _, words in MOVES])
def test_each_thing_that_moved_is_named(changes: dict[str, Any], words: str) -> None:
    before, now = Basis.model_validate(BASIS), Basis.model_validate({**BASIS, **changes})
    [told] = before.moved(now)
    assert words in told
    assert "nothing was done" in stale([told]) and told in stale([told])
    assert before.moved(before) == []


@given(st.lists(st.sampled_from(MOVES), unique_by=lambda move: move[1], max_size=5))
def test_nothing_that_moved_is_left_out(moves: list[tuple[dict[str, Any], str]]) -> None:
    now = dict(BASIS)
    for changes, _ in moves:
        for key, value in changes.items():
            now[key] = {**now[key], **value} if key == "hosts" and len(value) > 1 else value
    found = Basis.model_validate(BASIS).moved(Basis.model_validate(now))
    assert bool(found) == bool(now != BASIS)
    assert len(stale([f"thing {n}" for n in range(100)]).splitlines()) < 20
