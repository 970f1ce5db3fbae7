"""Inspection: find out over SSH what became of a host whose agent does not answer."""

from __future__ import annotations

from collections.abc import Mapping

from fleet_controller.actuate.hands import (
    CALM_S,
    HELD_S,
    Hands,
    held,
    look_delay_s,
    retry_delay_s,
    told,
    told_held,
    words,
)
from fleet_controller.actuate.site import Site
from fleet_controller.door.admin import FrontDoorError
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import AgentProcess
from fleet_controller.journal import HostRecord, JournalError
from fleet_controller.lifecycle import QUARANTINE_AFTER, HostState
from fleet_controller.records import UNKNOWN_ACTION
from fleet_wire.agent import AgentStatus


class Inspector:
    """Remembers since when each agent has been silent, so that a slow one is not taken for a dead one."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._silent_since: dict[str, float] = {}
        # Of each host's last start the processes that are known: one more is its supervisor's doing.
        self._met: dict[str, tuple[str, set[int]]] = {}

    def heard(self, answers: Mapping[str, AgentStatus]) -> dict[str, AgentStatus]:
        """These answered: when they are silent again, they are silent since then.

        Those that were started again between two looks: `tell` is to be asked about them.
        """
        for host in answers:
            self._silent_since.pop(host, None)
        return {h: status for h, status in answers.items() if self._is_new(h, status.action_id, status.pid)}

    def tell(self, host: str, status: AgentStatus, site: Site) -> None:
        """Tell that it was started again, and why as far as its host knows that. Raises JournalError alone."""
        try:
            agent = site.machines.machine(host).probe().agent
        except HostFailure:
            agent = None
        if self._is_new(host, status.action_id, status.pid):
            how = agent.last_end if agent is not None and agent.action_id == status.action_id else ""
            self._tell_restart(self._hands.record(host), status.pid, how)

    def _is_new(self, host: str, action_id: str, pid: int) -> bool:
        """Whether this is one more process of a start that is known."""
        if host not in self._met or self._met[host][0] != action_id:
            self._met[host] = (action_id, {pid})
        return pid not in self._met[host][1]

    def inspect(self, host: str, site: Site) -> None:
        """Record what the host is found to be. Raises JournalError alone."""
        record = self._hands.record(host)
        try:
            self._judge(record, site)
        except JournalError:
            raise
        except Exception as error:
            # one host's trouble, a bug of ours included, must not take the others down
            lost = isinstance(error, HostFailure) and error.unreachable
            if lost and self._switched_off(host, site):
                self._gone(record, f"{host}: the machine is switched off.")
                return
            if lost:
                self._lose(record, error, site)
            else:
                self._give_up(record, words(error, host), unproven=held(error))

    def _judge(self, record: HostRecord, site: Site) -> None:
        host = record.name
        machine = site.machines.machine(host)
        if record.state is HostState.UNREACHABLE and record.leaves(self._hands.journal.goal()):
            machine.probe()  # it is to be stopped, which takes SSH: that its agent answers is no reason to try again
        report = self._hands.report(host, site)
        if report.status is not None and report.status.state in ("ready", "draining"):
            self._silent_since.pop(host, None)
            self._hands.move(host, HostState.READY, "answers again", error=None, retry_at=0.0)
            return
        agent = machine.probe().agent
        if agent is None or not agent.alive:
            if record.action_id is None and self._is_on_for_nothing(host, site):
                # a start that never reached it switched it on: plan starts it now, or has it switched off
                self._hands.move(host, HostState.FAILED, "reachable again", retry_at=0.0)
                return
            if record.action_id in (None, UNKNOWN_ACTION):
                self._hands.move(
                    host, HostState.OFF, "reachable again", error=None, retry_at=0.0, action_id=None
                )
                return
            if agent is not None and agent.rebooted:
                machine.stop(grace_s=0.0)  # what its supervision left on the disk
                self._give_up(
                    record, f"{host}: the machine was rebooted, and its agent ended with it.", gone=True
                )
                return
            tail = machine.tail(3).strip().replace("\n", " | ")
            machine.stop(grace_s=0.0)  # what it left behind, its worker for one
            how = f" ({agent.last_end})" if agent is not None and agent.last_end else ""
            self._give_up(record, f"{host}: the agent died{how}. Its last words: {tail}", gone=True)
            return
        if record.action_id == UNKNOWN_ACTION:
            self._adopt(record, agent, site)
            return
        self._tell_restarts(record, agent)
        if agent.action_id == record.action_id and agent.port and agent.port != record.agent_port:
            # Its supervisor started it again, and it listens somewhere else now.
            self._hands.journal.amend(host, agent_port=agent.port)
            self._hands.on_change()
            return
        since = self._silent_since.setdefault(host, self._hands.clock.monotonic())
        says_failed = report.status is not None and report.status.state == "failed"
        loads = report.status is not None and report.status.state == "loading"
        # One that its supervisor started again loads its models anew; that takes what it takes.
        patience_s = (
            site.spec.host(host).agent.start_timeout if loads else site.spec.controller.unreachable_after
        )
        overdue = self._hands.clock.monotonic() - since > patience_s
        if not says_failed and (not overdue or self._serves(host)):
            return
        # half the fleet may look like this at once, and then it is likelier us than the hosts
        if self._hands.allowance.take(site.pool(record).name):
            machine.stop(grace_s=0.0)
            why = report.status.error if report.status is not None else report.error
            verdict = "failed" if says_failed else "hangs"
            self._give_up(record, f"{host}: the agent {verdict}: {why}", gone=True)

    def _tell_restarts(self, record: HostRecord, agent: AgentProcess) -> None:
        if not agent.pid:
            return  # its supervisor waits; the process that comes is told
        first = record.name not in self._met or self._met[record.name][0] != agent.action_id
        if self._is_new(record.name, agent.action_id, agent.pid) or (first and agent.restarts):
            self._tell_restart(record, agent.pid, agent.last_end)

    def _tell_restart(self, record: HostRecord, pid: int, how: str) -> None:
        """Its supervisor on the host is quicker than we are; that it had to act is told all the same, once."""
        self._met[record.name][1].add(pid)
        ended = f" ({how})" if how else ""
        text = f"{record.name}: the agent ended{ended} and was started again by its supervisor on the host"
        self._hands.journal.record(self._hands.clock.now(), "restarted", text, record.pool, record.name)

    def _is_on_for_nothing(self, host: str, site: Site) -> bool:
        """Whether its power is ours to switch and not known to be off."""
        return site.spec.host(host).power.driver != "none" and not self._switched_off(host, site)

    def _switched_off(self, host: str, site: Site) -> bool:
        """Whether that is known: then nothing is lost there, and nothing of ours runs."""
        try:
            return site.machines.machine(host).powered() is False
        except HostFailure:
            return False

    def _gone(self, record: HostRecord, error: str) -> None:
        if record.state is not HostState.UNREACHABLE:
            self._give_up(record, error, gone=True)
            return
        self._silent_since.pop(record.name, None)
        self._hands.move(
            record.name,
            HostState.OFF,
            "found switched off",
            error=None,
            retry_at=0.0,
            action_id=None,
            agent_port=None,
        )

    def _adopt(self, record: HostRecord, agent: AgentProcess, site: Site) -> None:
        """An agent of ours that the lost state store knew: it is taken over as it is. Plan replaces an outdated one."""
        if not agent.port:
            return  # it does not listen yet, and is found at the next look
        pool = site.pool_that_runs(record.name, agent.release) or site.pool(record)
        self._hands.move(
            record.name,
            HostState.LOADING,
            "found running",
            error=None,
            retry_at=0.0,
            action_id=agent.action_id,
            agent_port=agent.port,
            release=agent.release,
            pool=pool.name,
        )
        report = self._hands.report(record.name, site)
        ready = report.status is not None and report.status.state == "ready"
        state = HostState.READY if ready else HostState.UNREACHABLE
        self._hands.move(record.name, state, "found running", retry_at=0.0)

    def _serves(self, host: str) -> bool:
        """Whether the balancer finds the host well: then it is our way to the agent that is broken, not the agent.

        Where it can't be asked we are blind, and who is blind ends nothing.
        """
        try:
            return any(b.name == host and b.healthy for b in self._hands.door.status().backends)
        except FrontDoorError:
            return True

    def _lose(self, record: HostRecord, error: Exception, site: Site) -> None:
        """It can't be reached. How it fares nobody knows, so its failures stay as they are."""
        self._silent_since.pop(record.name, None)
        now = self._hands.clock.now()
        lost_for_s = now - record.since if record.state is HostState.UNREACHABLE else 0.0
        delay_s = look_delay_s(lost_for_s, error)
        if site.spec.host(record.name).power.driver != "none" and self._hands.journal.goal() == "down":
            delay_s = 0.0  # a look that was under way: its power ends it now, and `down` waits for that
        self._hands.move(
            record.name,
            HostState.UNREACHABLE,
            "does not answer",
            error=words(error, record.name),
            retry_at=now + delay_s,
        )

    def _give_up(self, record: HostRecord, error: str, gone: bool = False, unproven: bool = False) -> None:
        """It failed. `gone`: nothing of the agent is left there. `unproven`: something is, and does not end."""
        self._silent_since.pop(record.name, None)
        calm = record.state is HostState.READY and self._hands.clock.now() - record.since > CALM_S
        # what failed before it served this long is forgiven
        failures = (0 if calm else record.failures) + 1
        # a first crash is mended at once; only repeated ones wait
        delay_s = 0.0 if gone and failures == 1 else retry_delay_s(failures)
        if unproven:
            failures, delay_s = max(failures, QUARANTINE_AFTER), HELD_S
        changes: dict[str, object] = {"action_id": None, "agent_port": None} if gone else {}
        self._hands.move(
            record.name,
            HostState.FAILED,
            "its agent is gone",
            error=told_held(error, record.name) if unproven else told(error, record.name, failures),
            failures=failures,
            retry_at=self._hands.clock.now() + delay_s,
            unproven=unproven,
            **changes,
        )
