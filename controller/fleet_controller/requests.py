"""What an operator may ask of a running controller, and how each request changes the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from pydantic import ValidationError

from fleet_controller.journal import HostRecord, Journal, Request
from fleet_controller.lifecycle import HostState
from fleet_controller.operation import Bounds, Operation, Scope
from fleet_controller.plan.placement import serves
from fleet_controller.policies import PolicyState, set_desired
from fleet_controller.spec import FleetSpec

# Share of the hosts that may leave fleet.yaml at once without a word; one always may.
MOST_REMOVED = 0.30


class Refused(Exception):
    """The request can't be followed; the message says why and what can be."""


def apply(request: Request, spec: FleetSpec, journal: Journal, now: float) -> str:
    """Carry out a request; returns what to tell the operator. Raises Refused."""
    handler = _HANDLERS.get(request.kind)
    if handler is None:
        raise Refused(f"this controller does not know the request {request.kind!r}; restart it: fleetctl up")
    return handler(request.args, spec, journal, now)


def take_in(
    spec: FleetSpec, journal: Journal, now: float, known_before: Callable[[str], bool] = lambda host: False
) -> None:
    """Know the hosts of `spec` and forget those that left it.

    `known_before`: whether a host had an agent once, as its token tells. Where the journal does not know such a host,
    the journal was lost, and the host is looked at before anything is started there.

    Raises Refused when that would abandon a running host, or when so many left at once that it looks like a mistake.
    """
    known = {h.name for h in spec.hosts}
    recorded = journal.hosts()
    gone = {name: record.state for name, record in recorded.items() if name not in known}
    running = [f"{name} ({state})" for name, state in gone.items() if state is not HostState.OFF]
    if running:
        raise Refused(
            f"{spec.source.name} no longer has {', '.join(running)}; put them back, `fleetctl drain` them, "
            "and remove them once they are off"
        )
    if len(gone) > max(1, MOST_REMOVED * len(recorded)) and sorted(known) != journal.removal_allowed():
        raise Refused(
            f"{spec.source.name} has lost {len(gone)} of its hosts at once ({', '.join(sorted(gone)[:5])}"
            f"{', ...' if len(gone) > 5 else ''}); put them back, or say that it is meant so: "
            "`fleetctl up --allow-mass-removal`"
        )
    journal.dismiss(gone)
    journal.enlist(known, now, {name for name in known - set(recorded) if known_before(name)})


def _up(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float) -> str:
    bounds, records = _bounds(args, spec), journal.hosts()
    running = journal.goal() == "up"
    scope = Scope(since=now, by=bounds.by)
    if bounds.hosts is not None:
        before = Scope.model_validate(journal.scope()).model_copy(update={"since": now, "by": bounds.by})
        scope = before.asked_for(frozenset(bounds.hosts), records, running)
    said = _order("up", bounds, scope, spec, journal, now)
    if not running or said:
        journal.record(now, "up", f"asked by the operator{said}")
    for record in records.values():
        if record.state in (HostState.FAILED, HostState.UNREACHABLE) and _meant(bounds, record.name):
            journal.amend(record.name, retry_at=0.0, failures=0)
    return f"{spec.fleet} goes up{said}"


def _down(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float) -> str:
    bounds = _bounds(args, spec)
    goal, scope = "down", Scope(since=now, by=bounds.by)
    if bounds.hosts is not None:
        if journal.goal() != "up":
            raise Refused(f"{spec.fleet} is not up; `fleetctl down` without --limit stops what is left of it")
        before = Scope.model_validate(journal.scope()).model_copy(update={"since": now, "by": bounds.by})
        goal, scope = "up", before.without(bounds.hosts)
    changed = journal.goal() != goal
    said = _order("down", bounds, scope, spec, journal, now, goal)
    if changed or said:
        journal.record(now, "down", f"asked by the operator{said}")
    # After a start that failed, or never reached its host, nothing of ours runs there; but the machine that was
    # switched on for it still does. It is stopped, which asks its power control.
    switched = {host.name for host in spec.hosts if host.power.driver != "none"}
    for record in journal.hosts().values():
        if record.state in (HostState.FAILED, HostState.UNREACHABLE) and _meant(bounds, record.name):
            if record.action_id is None and record.name not in switched:
                journal.move(
                    record.name, HostState.OFF, "nothing of ours runs there", now, error=None, retry_at=0.0
                )
            else:
                journal.amend(record.name, retry_at=0.0)
    for pool in spec.pools if goal == "down" else ():
        journal.save_pool(
            replace(journal.pool(pool.name), desired=None, why="", policy_state={}, last_decision=None)
        )
    if goal == "up":
        return f"{', '.join(bounds.hosts or ())} go down, and stay off until `fleetctl up`"
    return f"{spec.fleet} goes down{said}"


def _order(
    kind: Literal["up", "down"],
    bounds: Bounds,
    scope: Scope,
    spec: FleetSpec,
    journal: Journal,
    now: float,
    goal: str | None = None,
) -> str:
    """Put the operation in force, and tell its bounds in words. One that is asked twice, after a crash, goes on."""
    known = journal.operation()
    operation = None if known is None else Operation.model_validate(known)
    if operation is None or not bounds.id or operation.bounds.id != bounds.id:
        hosts = bounds.planned if bounds.planned is not None else bounds.hosts
        meant = len({name for pool in spec.pools for name in pool.hosts}) if hosts is None else len(hosts)
        operation = Operation(kind=kind, since=now, bounds=bounds, touches=meant)
    journal.order(goal or kind, scope.model_dump(mode="json"), operation.model_dump(mode="json"))
    return _in_words(bounds, operation)


def _in_words(bounds: Bounds, operation: Operation) -> str:
    parts = []
    if bounds.planned is not None:
        parts.append(f"as planned, {len(bounds.planned)} host{'s' * (len(bounds.planned) != 1)}")
    elif bounds.hosts is not None:
        names = ", ".join(bounds.hosts[:5]) + (", ..." if len(bounds.hosts) > 5 else "")
        parts.append(f"only {names}")
    if bounds.parallel is not None:
        parts.append(f"at most {bounds.parallel} at once")
    if (most := operation.most_failures) is not None:
        parts.append(f"until {most} host{'s' * (most != 1)} failed")
    return f" ({'; '.join(parts)})" if parts else ""


def _bounds(args: dict[str, Any], spec: FleetSpec) -> Bounds:
    """What the request says of hosts and numbers. Raises Refused."""
    try:
        bounds = Bounds.model_validate(args.get("bounds") or {})
    except ValidationError as error:
        raise Refused(
            f"this controller does not understand the request: {error.errors()[0]['msg']}"
        ) from error
    served = {name for pool in spec.pools for name in pool.hosts}
    strange = [name for name in (*(bounds.hosts or ()), *(bounds.planned or ())) if name not in served]
    if strange:
        raise Refused(f"there is no host {strange[0]!r} in any pool of {spec.source.name}")
    return bounds


def _meant(bounds: Bounds, host: str) -> bool:
    """Whether the operation may touch the host."""
    return Operation(kind="up", since=0.0, bounds=bounds).may_touch(host)


def _scale(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float) -> str:
    pool = _pool(args, spec)
    servers = int(args["servers"])
    bounds = spec.pool(pool).scaling
    if not bounds.min_servers <= servers <= bounds.max_servers:
        raise Refused(
            f"pool {pool} runs {bounds.min_servers} to {bounds.max_servers} servers, not {servers}; "
            "change min_servers or max_servers in fleet.yaml"
        )
    if journal.goal() == "down":
        raise Refused(f"{spec.fleet} is down; start it first: fleetctl up")
    record = journal.pool(pool)
    state = PolicyState.model_validate(record.policy_state)
    reason = f"scaled to {servers} by the operator"
    state = set_desired(state, servers, now, reason)
    decision = {"at": now, "desired": servers, "reason": reason, "winner": "operator", "recommendations": []}
    journal.save_pool(
        replace(
            record,
            desired=servers,
            why=reason,
            policy_state=state.model_dump(mode="json"),
            last_decision=decision,
        )
    )
    journal.record(now, "scale", reason, pool, data={"from": record.desired, "to": servers})
    return f"pool {pool} goes to {servers}"


def _drain(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float) -> str:
    host = _host(args, spec)
    journal.amend(host, cordoned=True)
    record = journal.host(host)
    journal.record(now, "cordon", "drained by the operator", _pool_name(spec, record), host)
    if record.state is HostState.UNREACHABLE:
        return (
            f"{host} is out of reach: it gets no new requests, is stopped once it is reached again, and stays out "
            f"until `fleetctl uncordon {host}`"
        )
    return f"{host} drains, stops, and stays off until `fleetctl uncordon {host}`"


def _uncordon(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float) -> str:
    host = _host(args, spec)
    journal.amend(host, cordoned=False, retry_at=0.0, failures=0)
    journal.record(now, "uncordon", "returned by the operator", _pool_name(spec, journal.host(host)), host)
    return f"{host} may be started again"


def _pause(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float) -> str:
    return _set_paused(args, spec, journal, now, True)


def _resume(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float) -> str:
    return _set_paused(args, spec, journal, now, False)


def _set_paused(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float, paused: bool) -> str:
    names = [_pool(args, spec)] if args.get("pool") else [p.name for p in spec.pools]
    for name in names:
        record = journal.pool(name)
        if record.paused != paused:
            journal.save_pool(replace(record, paused=paused))
            journal.record(now, "pause" if paused else "resume", "asked by the operator", name)
    return f"autoscaling {'is paused' if paused else 'goes on'} in {', '.join(names)}"


def _rollback(args: dict[str, Any], spec: FleetSpec, journal: Journal, now: float) -> str:
    """Who was sent back is in the state folder already; that the controller was asked makes it look there now."""
    names = [_pool({"pool": name}, spec) for name in args.get("pools", [])]
    for name in names:
        to = args.get("to")
        text = f"sent back to release {to} by the operator" if to else "follows fleet.yaml again"
        journal.record(now, "rollback", text, name)
        for host in spec.pool(name).hosts:  # what failed with the other release says nothing about this one
            journal.amend(host, failures=0)
            if journal.host(host).state is HostState.FAILED:
                journal.amend(host, retry_at=0.0)
    whither = f"goes back to release {args['to']}" if args.get("to") else "follows fleet.yaml again"
    return f"{', '.join(names)}: {whither}"


def _keys(_args: dict[str, Any], spec: FleetSpec, journal: Journal, _now: float) -> str:
    """The keys are in the journal already; that the controller was asked makes it tell the balancer now."""
    if spec.balancer.keys == "off":
        return "nobody is asked for a key: fleet.yaml has balancer.keys: off"
    count = len(journal.api_keys())
    return f"the balancer asks for a key; {count} {'is' if count == 1 else 'are'} in force"


def _pool(args: dict[str, Any], spec: FleetSpec) -> str:
    name = args.get("pool") or (spec.pools[0].name if len(spec.pools) == 1 else None)
    known = [p.name for p in spec.pools]
    if name not in known:
        raise Refused(f"there is no pool {name!r}; the pools are {', '.join(known)}")
    return str(name)


def _host(args: dict[str, Any], spec: FleetSpec) -> str:
    name = str(args.get("host"))
    if name not in [h.name for h in spec.hosts]:
        raise Refused(f"there is no host {name!r} in {spec.source.name}; `fleetctl hosts` lists them")
    return name


def _pool_name(spec: FleetSpec, record: HostRecord) -> str | None:
    pool = serves(spec, record)
    return pool.name if pool else None


_HANDLERS: dict[str, Callable[[dict[str, Any], FleetSpec, Journal, float], str]] = {
    "up": _up,
    "down": _down,
    "scale": _scale,
    "drain": _drain,
    "uncordon": _uncordon,
    "pause": _pause,
    "resume": _resume,
    "keys": _keys,
    "rollback": _rollback,
}
