"""What the controller would do next, without doing it: the same code as the loop's, one stage fewer."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from time import time

from fleet_controller.actuate import open_site
from fleet_controller.door import daemons
from fleet_controller.door.admin import FrontDoor
from fleet_controller.journal import Journal
from fleet_controller.lifecycle import STARTING_UP, HostState
from fleet_controller.observe import Observer
from fleet_controller.plan import Step
from fleet_controller.plan.tiers import fleet_steps
from fleet_controller.spec import FleetSpec
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
class Plan:
    """What would change."""

    pools: tuple[PoolPlan, ...]
    steps: tuple[Step, ...]


def preview(spec: FleetSpec, journal: Journal, folder: StateFolder, goal: str = "up") -> Plan:
    """What `up` (or `down`) would begin now. Asks the agents that are known to run, and changes nothing.

    Raises HostFailure when a model's release can't be built.
    """
    now = time()
    site = open_site(spec, folder)
    records = journal.hosts()
    admin = str(daemons.balancer(spec, folder).ready().get("admin", spec.balancer.admin))
    door = FrontDoor(lambda: admin, folder.token("balancer"))
    with ThreadPoolExecutor(max_workers=spec.controller.parallel) as executor:
        observation = Observer(executor).look(site.targets(records), door, now)
    pools, ranks = [], []
    for pool in spec.pools:
        record = journal.pool(pool.name)
        known = record.desired
        low, high = pool.scaling.min_servers, pool.scaling.max_servers
        desired = 0 if goal == "down" else min(max(known if known is not None else low, low), high)
        reason = f"min_servers {low}" if known is None else f"{desired} servers were wanted last"
        busy = frozenset(a.host for a in journal.open_actions())
        release = site.releases[pool.name].key
        view = pool_view(
            spec,
            pool,
            records,
            desired,
            release,
            reason,
            busy,
            observation,
            speeds=record.learned.get("speeds"),
        )
        ready = view.count([HostState.READY])
        pools.append(PoolPlan(pool.name, desired, ready, view.count(STARTING_UP), reason))
        ranks.append(pool_rank(spec, pool, view, observation, decided=True))
    return Plan(tuple(pools), tuple(s for s in fleet_steps(ranks, goal, now) if s.kind != "inspect"))
