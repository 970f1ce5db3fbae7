"""Stop: drain at the balancer, stop the agent, prove it gone, switch the machine off where that is ours to do."""

from __future__ import annotations

from typing import Any

from fleet_controller.actuate.hands import POLL_S, Hands
from fleet_controller.actuate.site import Site
from fleet_controller.door.admin import FrontDoorError
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import Machine
from fleet_controller.journal import Action
from fleet_controller.lifecycle import HostState

# So many of the processes that had to be killed are named.
NAMED = 5


def stop(action: Action, site: Site, hands: Hands) -> None:
    """Take the host out of service. Raises HostFailure."""
    machine = site.machines.machine(action.host)
    patience_s = site.spec.host(action.host).agent.drain_timeout
    # One that failed is put away, not forgiven: when it is wanted again its failures count on.
    record = hands.record(action.host)
    failed = record.error is not None and not record.unproven and hands.journal.goal() != "down"
    forgiven: dict[str, Any] = {} if failed else {"failures": 0, "retry_at": 0.0}
    hands.move(action.host, HostState.DRAINING, action.reason)
    left = _await_drained(action.host, patience_s, hands)
    if left:
        text = f"{left} requests were still in flight after {patience_s:.0f} s and are cut off"
        pool = site.pool(hands.record(action.host))
        hands.journal.record(hands.clock.now(), "drain_timeout", text, pool.name, action.host)
    hands.move(action.host, HostState.STOPPING, action.reason)
    for note in _take_down(machine, grace_s=0.0 if left else patience_s):
        pool = site.pool(hands.record(action.host))
        hands.journal.record(hands.clock.now(), "remark", f"{action.host}: {note}", pool.name, action.host)
    hands.journal.conclude(
        action,
        HostState.OFF,
        action.reason,
        hands.clock.now(),
        action_id=None,
        agent_port=None,
        release=None,
        **forgiven,
    )


def _take_down(machine: Machine, grace_s: float) -> tuple[str, ...]:
    """End the agent and prove it gone, then switch the machine off; what the operator should know. Raises HostFailure.

    Power that nobody can tell or switch keeps no agent running: it is ended first, and the trouble told after. Where
    the agent can't be reached, a machine that was switched off, and is proved to be, has ended it.
    """
    trouble = None
    notes: tuple[str, ...] = ()
    try:
        powered = machine.powered()
    except HostFailure as failure:
        powered, trouble = True, failure
    if powered is not False:  # one that is off runs nothing, and nobody would answer there
        try:
            stopped = machine.stop(grace_s=grace_s)
            notes = (*_killed(stopped.killed), *stopped.notes)
        except HostFailure as failure:
            if not powered or not failure.unreachable:
                raise
            return _switch_off(machine, failure, trouble)
    if powered and trouble is None:
        trouble = _not_off(machine)
    if trouble is not None:
        cause = f"its agent is stopped, but the machine is not proved to be off: {trouble.cause}"
        raise HostFailure(machine.name, "power", cause, trouble.next_step, trouble.jump) from trouble
    return notes


def _killed(names: tuple[str, ...]) -> tuple[str, ...]:
    """A remark about the processes that had to be killed, or none."""
    if not names:
        return ()
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (f"SIGKILL ended what did not end by itself: {'; '.join(names[:NAMED])}{more}",)


def _switch_off(machine: Machine, lost: HostFailure, trouble: HostFailure | None) -> tuple[str, ...]:
    """The machine that can't be reached, by its power control alone. Raises `lost`, with what else stood in the way."""
    trouble = trouble or _not_off(machine)
    if trouble is not None:
        cause = f"{lost.cause}. Nor is the machine proved to be off: {trouble.cause}"
        raise HostFailure(machine.name, lost.kind, cause, trouble.next_step, lost.jump) from lost
    return (f"it could not be reached ({lost.cause}), so its power control alone ended what ran there",)


def _not_off(machine: Machine) -> HostFailure | None:
    """Switch it off; why it is not proved to be off, or None."""
    try:
        machine.power_off()
    except HostFailure as failure:
        return failure
    return None


def _await_drained(host: str, patience_s: float, hands: Hands) -> int:
    """Wait until the balancer sends nothing there and nothing is in flight; how many are left after `patience_s`.

    Without a balancer there is no traffic to wait for: the agent itself still drains on SIGTERM.
    """
    deadline = hands.clock.monotonic() + patience_s
    pause_s = POLL_S / 4
    while True:
        try:
            backends = [b for b in hands.door.status().backends if b.name == host]
        except FrontDoorError:
            return 0
        in_flight = sum(b.in_flight for b in backends)
        if in_flight == 0 and all(b.state == "draining" for b in backends):
            return 0
        if hands.clock.monotonic() > deadline:
            return in_flight
        hands.alive(host)
        hands.clock.sleep(pause_s)
        pause_s = min(1.0, 1.2 * pause_s)  # a long drain needs no haste, and a hundred at once none at all
