"""What sharing never does, whatever the pools want."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fleet_controller.lifecycle import HostState
from fleet_controller.plan.placement import has

HOSTS = "abcdefgh"
SETTLED = (
    60  # ticks; the longest way is one host after the other, each drained, started and kept for its cooldown
)

Sharing = Callable[..., Any]


@st.composite
def fleets(draw: st.DrawFn) -> dict[str, Any]:
    pools = {}
    for number in range(draw(st.integers(2, 3))):
        hosts = sorted(draw(st.sets(st.sampled_from(HOSTS), min_size=1)))
        pools[f"p{number}"] = {
            "hosts": "".join(hosts),
            "tier": draw(st.sampled_from(["interactive", "batch"])),
            "floor": draw(st.integers(0, 2)),
            "cooldown": 30.0,
        }
    hosts = {
        h: {
            "protect": draw(st.integers(0, 9)) == 0,
            "spot": draw(st.booleans()),
            "price_per_hour": draw(st.sampled_from([None, 1.0, 3.0])),
        }
        for h in HOSTS
    }
    wanted = st.fixed_dictionaries({name: st.integers(pool["floor"], 6) for name, pool in pools.items()})
    return {
        "pools": pools,
        "hosts": hosts,
        "takes": draw(st.integers(1, 4)),
        "phases": draw(st.lists(wanted, min_size=1, max_size=3)),
    }


def checked_tick(world: Any) -> None:
    """One tick, and what must hold of its steps."""
    found = world.tick()
    ready = Counter(r.pool for r in world.before.values() if r.state is HostState.READY)
    assert len({s.host for s in found}) == len(found)
    lent: dict[str, int] = {}
    for step in found:
        was = world.before[step.host]
        assert step.host in world.spec.pool(step.pool).hosts
        if step.kind == "stop":
            # stopping begins with draining: only what serves, and for the pool that has it
            assert was.state is HostState.READY and was.pool == step.pool
            assert world.spec.host(step.host).protect is False
            if step.reason.startswith("borrowed"):
                lent[step.pool] = lent.get(step.pool, 0) + 1
        if step.kind == "start" and was.state is not HostState.STARTING:
            assert was.state in (HostState.OFF, HostState.FAILED)
    for name, count in lent.items():
        assert ready[name] - count >= world.spec.pool(name).scaling.min_servers
    for record in world.records.values():
        assert sum(
            has(world.spec, p, record.name, record) for p in world.spec.pools_of(record.name)
        ) <= 1 or (record.state is HostState.OFF)


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(fleet=fleets())
def test_borrowing_comes_to_rest_within_its_bounds(sharing: Sharing, fleet: dict[str, Any]) -> None:
    world = sharing(fleet["pools"], fleet["hosts"], fleet["takes"])
    for wanted in fleet["phases"]:
        world.desired |= wanted
        world.done.clear()
        for _ in range(SETTLED):
            checked_tick(world)
        starts = sum(s.kind == "start" for s in world.done)
        assert starts <= 2 * len(HOSTS), f"{starts} starts for one change of what is wanted"
        world.done.clear()
        for _ in range(20):
            checked_tick(world)
        assert world.done == [], "it never comes to rest"
        at_rest(world)


def at_rest(world: Any) -> None:
    """A pool that lacks servers has no free host left and nothing to borrow."""
    for pool in world.spec.pools:
        lacks = world.desired[pool.name] - len(world.has(pool.name))
        if lacks <= 0:
            continue
        assert not [n for n in pool.hosts if world.records[n].state is HostState.OFF], pool.name
        for lender in world.spec.pools:
            if pool.tier == "batch" or lender.tier == "interactive":
                continue
            can = [n for n in world.has(lender.name) if n in pool.hosts and not world.spec.host(n).protect]
            assert not can or len(world.has(lender.name)) <= lender.scaling.min_servers
