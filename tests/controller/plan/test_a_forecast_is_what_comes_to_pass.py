"""What `fleetctl plan` tells is what the controller's steps lead to, and it has an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_controller.foresight.changes import changes, planned, totals
from fleet_controller.foresight.forecast import forecast
from fleet_controller.lifecycle import HostState
from fleet_controller.observe import Observation
from fleet_controller.plan.tiers import fleet_steps
from fleet_controller.records import HostRecord
from fleet_controller.view import pool_rank, pool_view

Sharing = Callable[..., Any]
HOSTS = "abcdefgh"
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

was = st.sampled_from(["off", "off", "old", "old", "new", "failed", "cordoned"])
SEEN = {
    "off": (HostState.OFF, None),
    "old": (HostState.READY, "release-before"),
    "new": (HostState.READY, "release-p"),
    "failed": (HostState.FAILED, None),
    "cordoned": (HostState.READY, "release-p"),
}


def placed(world: Any, states: dict[str, str]) -> None:
    for name, said in states.items():
        state, release = SEEN[said]
        world.records[name] = replace(
            world.records[name], state=state, pool="p", release=release, cordoned=said == "cordoned"
        )


def told(world: Any) -> Any:
    """The forecast for a world as it is."""

    def plan(records: Any) -> Any:
        seen = Observation(world.now, {}, None, None)
        ranks = []
        for pool in world.spec.pools:
            view = pool_view(
                world.spec, pool, records, world.desired[pool.name], f"release-{pool.name}", "the decision",
                frozenset(), seen,
            )  # fmt: skip
            ranks.append(pool_rank(world.spec, pool, view, seen, True))
        return ranks, fleet_steps(ranks, "up", world.now)

    releases = {pool.name: f"release-{pool.name}" for pool in world.spec.pools}
    return forecast(world.records, releases, plan, world.now)


def runs(records: dict[str, HostRecord]) -> dict[str, tuple[bool, str | None]]:
    return {
        n: (r.state is HostState.READY, r.release if r.state is HostState.READY else None)
        for n, r in records.items()
    }


@QUIET
@given(states=st.fixed_dictionaries(dict.fromkeys(HOSTS, was)), desired=st.integers(0, 9))
def test_the_hosts_end_as_the_plan_says(sharing: Sharing, states: dict[str, str], desired: int) -> None:
    world = sharing({"p": {"hosts": HOSTS}})
    placed(world, states)
    world.desired["p"] = desired
    foreseen = told(world)
    assert foreseen.complete
    world.run(120, p=desired)
    assert runs(world.records) == runs(foreseen.after)
    # each host with a step is among the changes, and no other
    did = {step.host for step in world.done if step.kind != "inspect"}
    assert did == set(planned(changes(foreseen)))


@QUIET
@given(
    states=st.fixed_dictionaries(dict.fromkeys(HOSTS, was)),
    desired=st.fixed_dictionaries({"p": st.integers(0, 9), "q": st.integers(0, 9)}),
    tier=st.sampled_from(["interactive", "batch"]),
)
def test_a_plan_of_what_was_planned_is_empty(
    sharing: Sharing, states: dict[str, str], desired: dict[str, int], tier: str
) -> None:
    world = sharing({"p": {"hosts": "abcdef"}, "q": {"hosts": "efgh", "tier": tier}})
    placed(world, states)
    world.desired |= desired
    foreseen = told(world)
    world.records = dict(foreseen.after)
    again = told(world)
    assert again.steps == ()
    assert planned(changes(again)) == {}


@QUIET
@given(states=st.fixed_dictionaries(dict.fromkeys(HOSTS, was)), desired=st.integers(0, 9))
def test_each_change_is_what_differs_and_nothing_else_does(
    sharing: Sharing, states: dict[str, str], desired: int
) -> None:
    world = sharing({"p": {"hosts": HOSTS}}, {h: {"price_per_hour": 2.0, "watts": 100.0} for h in HOSTS})
    placed(world, states)
    world.desired["p"] = desired
    foreseen = told(world)
    for change in changes(foreseen):
        before, after = foreseen.before[change.host], foreseen.after[change.host]
        ready = (before.state is HostState.READY, after.state is HostState.READY)
        expected = {(False, True): {"start"}, (True, False): {"stop"}, (True, True): {"none", "replace"}}
        assert change.action in expected.get(ready, {"none"}), change
        assert (change.action == "replace") == (ready == (True, True) and before.release != after.release)
        assert change.reason or change.action == "none"
    after = totals(world.spec, foreseen.after.values())
    assert after.cost_per_hour == 2.0 * after.hosts and after.watts == 100.0 * after.hosts


def test_a_rollout_in_place_is_told_whole_and_soon(sharing: Sharing) -> None:
    names = [f"h{n:04}" for n in range(1000)]
    world = sharing({"p": {"hosts": names}})
    for name in names:
        world.records[name] = replace(
            world.records[name], state=HostState.READY, pool="p", release="release-before"
        )
    world.desired["p"] = 1000
    began = time.process_time()
    foreseen = told(world)
    assert planned(changes(foreseen)) == dict.fromkeys(names, "replace")
    assert time.process_time() - began < 20.0
