"""Start: from whatever the host is to one agent of the wanted release, ready. Each part finds what is done already."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from fleet_controller.actuate.hands import POLL_S, Hands
from fleet_controller.actuate.site import Site
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.machine import AgentProcess, Machine, Probe
from fleet_controller.journal import Action
from fleet_controller.lifecycle import HostState
from fleet_controller.records import UNKNOWN_ACTION
from fleet_controller.spec import LatencyTarget, ModelSpec
from fleet_wire.agent import RunFile


def start(action: Action, site: Site, hands: Hands) -> None:
    """Bring the host up, unless the fleet is to go down in the meantime. Raises HostFailure."""
    machine = site.machines.machine(action.host)
    began = hands.clock.monotonic()
    hands.move(action.host, HostState.BOOTING, action.reason)
    found, boot_s = _boot(machine, site, hands)
    known_boot_s = hands.record(action.host).boot_s or 0.0
    booted = {} if boot_s is None else {"boot_s": boot_s}
    hands.move(action.host, HostState.REACHABLE, action.reason, **booted)
    _launch(action, machine, found.agent, site, hands)
    hands.loading.add(action.host)
    try:
        ready = _await_ready(machine, site, hands)
    finally:
        hands.loading.discard(action.host)
    if not ready:
        hands.journal.conclude(action, HostState.LOADING, "abandoned: the fleet goes down", hands.clock.now())
        return
    took = hands.clock.monotonic() - began
    if boot_s is None and machine.spec.power.driver != "none":
        took += known_boot_s  # its next start is one from off, and that is what the policies reckon with
    hands.journal.conclude(
        action, HostState.READY, action.reason, hands.clock.now(), startup_s=took, retry_at=0.0
    )
    _keep(action.host, site, hands)


def _keep(host: str, site: Site, hands: Hands) -> None:
    """What serves is kept, to go back to it. That this fails takes no host out of service."""
    record = hands.record(host)
    pool = site.pool(record)
    try:
        if record.release == site.releases[pool.name].key:
            site.serves(pool.name, site.releases[pool.name])
    except HostFailure as failure:
        text = f"release {record.release} serves, but can't be kept to go back to it: {failure}"
        hands.journal.record(hands.clock.now(), "config", text, pool.name, host)


def _boot(machine: Machine, site: Site, hands: Hands) -> tuple[Probe, float | None]:
    """Switch the machine on where that is ours to do, and wait until it answers.

    What it answers, and how many seconds it took where it was switched on.
    """
    began = hands.clock.monotonic()
    try:
        powered = machine.powered()
    except HostFailure:
        # Whoever controls its power does not say. A machine that answers is on all the same.
        with suppress(HostFailure):
            return machine.probe(), None
        powered = False  # power_on() asks again, and refuses where not knowing forbids it
    if powered is None:
        return machine.probe(), None
    switched = not powered and machine.power_on()
    deadline = hands.clock.monotonic() + site.spec.host(machine.name).power.boot_timeout
    while True:
        try:
            found = machine.probe()
            return found, hands.clock.monotonic() - began if switched else None
        except HostFailure as failure:
            if not failure.unreachable or hands.clock.monotonic() > deadline:
                raise
        hands.alive(machine.name)
        hands.clock.sleep(POLL_S)


def _launch(action: Action, machine: Machine, found: AgentProcess | None, site: Site, hands: Hands) -> None:
    """Have one agent of the wanted release run there: the one that does already, or a new one."""
    pool = site.pool(hands.record(action.host))
    release = site.releases[pool.name]
    ours = found is not None and found.action_id == action.id
    # Until it is proved gone, or taken over: this host is not one on which nothing of ours runs.
    foreign = {} if found is None or ours else {"action_id": UNKNOWN_ACTION}
    hands.move(action.host, HostState.INSTALLING, action.reason, **foreign)
    if found is not None and not ours and found.alive and found.release == release.key and found.port:
        # an agent of ours that the journal had lost: it is taken over, not doubled
        hands.move(action.host, HostState.STARTING, action.reason)
        port, action_id, key = found.port, found.action_id, found.release
    else:
        if found is not None and not ours:
            machine.stop(grace_s=site.spec.host(action.host).agent.drain_timeout)
        done = machine.install(release, lambda text: hands.note(action.host, text))
        text = f"release {release.key} is installed; {done.sent_bytes} bytes were sent"
        hands.journal.record(
            hands.clock.now(), "installed", text, pool.name, action.host, {"sent_bytes": done.sent_bytes}
        )
        hands.move(action.host, HostState.STARTING, action.reason, action_id=action.id)
        models = site.models_of(pool)
        target = pool.scaling.latency

        def tell(text: str) -> None:
            hands.journal.record(
                hands.clock.now(), "remark", f"{action.host}: {text}", pool.name, action.host
            )

        run = _started(machine, release, models, action.id, site.token(action.host), target, tell)
        # not release.key: an agent that this action started before fleet.yaml changed is found, and plan replaces it
        port, action_id, key = run.port, run.action_id, run.release
    hands.move(
        action.host,
        HostState.LOADING,
        action.reason,
        action_id=action_id,
        agent_port=port,
        release=key,
    )


def _started(
    machine: Machine,
    release: Release,
    models: Sequence[ModelSpec],
    action_id: str,
    token: str,
    target: LatencyTarget | None,
    tell: Callable[[str], None],
) -> RunFile:
    """Start the agent. One of ours that neither the journal nor the host's files knew of is stopped first."""
    try:
        return machine.start(release, models, action_id, token, target, tell)
    except HostFailure as failure:
        if failure.kind != "conflict":
            raise
    machine.stop(grace_s=0.0)
    return machine.start(release, models, action_id, token, target, tell)


def _await_ready(machine: Machine, site: Site, hands: Hands) -> bool:
    """Poll the agent until its models are loaded; its own words when it can't load them.

    False when nobody wants them any more: loading may take long, and `fleetctl down` does not wait for it.
    """
    host = machine.name
    patience_s = site.spec.host(host).agent.start_timeout
    deadline = hands.clock.monotonic() + patience_s
    see = f"see `fleetctl logs {host}`"
    pause_s = POLL_S
    while True:
        report = hands.report(host, site)
        if report.status is not None and report.status.state == "ready":
            return True
        if hands.journal.goal() == "down":
            return False
        if report.status is not None and report.status.state == "failed":
            cause = f"the agent can't serve: {report.status.error}"
            raise HostFailure(host, "start", cause, f"{see}; mend the model and run `fleetctl up` again")
        if report.status is None and ((agent := machine.probe().agent) is None or not agent.alive):
            tail = machine.tail(5).strip().replace("\n", " | ")
            how = f" ({agent.last_end})" if agent is not None and agent.last_end else ""
            said = f": {tail}" if tail else ""
            raise HostFailure(host, "start", f"the agent died while loading{how}{said}", see)
        if hands.clock.monotonic() > deadline:
            cause = f"the models were not loaded after {patience_s:.0f} s"
            raise HostFailure(host, "start", cause, f"{see}, or raise agent.start_timeout in fleet.yaml")
        hands.clock.sleep(pause_s)
        pause_s = min(1.0, 1.1 * pause_s)  # large models take minutes; a hundred hosts may load at once
