"""What every place should hold now, from what the house knows of its hosts. PURE.

The picker of the pool's routing policy runs here as it does in the built-in engine; what it makes of weight, capacity,
device memory, learned speed becomes HAProxy's weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import median

from fleet_balancer.haproxy.layout import Layout
from fleet_balancer.haproxy.wanted import Wanted, weights
from fleet_balancer.member.member import Member
from fleet_balancer.pool import Pool

# How much more load a host of the balancer's own zone carries than one elsewhere.
NEAR = 2.0


def standing(
    pools: Mapping[str, Pool],
    layout: Layout,
    addresses: Mapping[str, str],
    is_known: Callable[[Member], bool],
    now: float,
) -> dict[tuple[str, str], Wanted]:
    """By HAProxy's pool and place. `addresses`: host names and what they resolved to; others are not placed.

    `is_known`: whether a host's memory has been asked for, where that matters; others get nothing yet.
    """
    places: dict[tuple[str, str], Wanted] = {}
    for name, pool in pools.items():
        pool_id = layout.id_of(name)
        slots = layout.slots[pool_id]
        heavy = weights(shares(pool, is_known, now))
        most = pool.config.max_in_flight_per_server or 0
        for member in pool.members:
            ip = addresses.get(member.host)
            if ip is None:
                continue
            places[pool_id, slots.place_of((member.name, member.address))] = Wanted(
                ip=ip,
                port=member.port,
                admin="drain" if member.draining or member.ejected else "ready",
                weight=heavy[member.name],
                most=1 if member.trial else member.spec.max_in_flight or most,
                healthy=member.health.healthy,
            )
    return places


def shares(pool: Pool, is_known: Callable[[Member], bool], now: float) -> dict[str, float]:
    """Each host's share of the pool's traffic, relative to the others; 0: nothing."""
    members = pool.members
    # HAProxy does not know which model a request is for: a host must have, and have memory for, all of the pool's.
    complete = [m for m in members if _has_all(m, pool)]
    costs = [m.cost_ms for m in members if m.cost_ms > 0]
    usual = median(costs) if costs and pool.config.routing == "response_time" else None
    result: dict[str, float] = {}
    for member in members:
        share = (
            member.share / member.ramp if member.watcher is not None and member.ramp > 0 else member.weight
        )
        if pool.zone is not None and member.spec.zone == pool.zone:
            share *= NEAR
        if usual is not None:
            share *= usual / (member.cost_ms or usual)
        if (complete and member not in complete) or not is_known(member) or _lacks(member, pool, now):
            share = 0.0
        result[member.name] = share
    return result


def _has_all(member: Member, pool: Pool) -> bool:
    return not member.spec.models or all(model.name in member.spec.models for model in pool.config.models)


def _lacks(member: Member, pool: Pool, now: float) -> bool:
    return any(member.lacks(model, need, now, pool.stale_s) for model, need in pool.needs.items())
