"""Inspection: find out over SSH what became of a host whose agent does not answer."""

from __future__ import annotations

from collections.abc import Iterable

from fleet_controller.actuate.hands import LAST_RETRY_S, Hands, retry_delay_s, words
from fleet_controller.actuate.site import Site
from fleet_controller.frontdoor import FrontDoorError
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.journal import HostRecord, JournalError
from fleet_controller.lifecycle import HostState


class Inspector:
    """Remembers since when each agent has been silent, so that a slow one is not taken for a dead one."""

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._silent_since: dict[str, float] = {}

    def heard(self, hosts: Iterable[str]) -> None:
        """These answered: when they are silent again, they are silent since then."""
        for host in hosts:
            self._silent_since.pop(host, None)

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
            state = HostState.UNREACHABLE if lost else HostState.FAILED
            self._give_up(record, state, words(error, host))

    def _judge(self, record: HostRecord, site: Site) -> None:
        host = record.name
        machine = site.machines.machine(host)
        report = self._hands.report(host, site)
        if report.status is not None and report.status.state in ("ready", "draining"):
            self._silent_since.pop(host, None)
            self._hands.move(host, HostState.READY, "answers again", error=None, retry_at=0.0)
            return
        agent = machine.probe().agent
        if agent is None or not agent.alive:
            if record.action_id is None:
                self._hands.move(host, HostState.OFF, "reachable again", error=None, retry_at=0.0)
                return
            tail = machine.tail(3).strip().replace("\n", " | ")
            machine.stop(grace_s=0.0)  # what it left behind, its worker for one
            self._give_up(
                record, HostState.FAILED, f"{host}: the agent died. Its last words: {tail}", gone=True
            )
            return
        since = self._silent_since.setdefault(host, self._hands.clock.monotonic())
        says_failed = report.status is not None and report.status.state == "failed"
        overdue = self._hands.clock.monotonic() - since > site.spec.controller.unreachable_after
        if not says_failed and (not overdue or self._serves(host)):
            return
        # half the fleet may look like this at once, and then it is likelier us than the hosts
        if self._hands.allowance.take(site.pool(host).name):
            machine.stop(grace_s=0.0)
            why = report.status.error if report.status is not None else report.error
            verdict = "failed" if says_failed else "hangs"
            self._give_up(record, HostState.FAILED, f"{host}: the agent {verdict}: {why}", gone=True)

    def _switched_off(self, host: str, site: Site) -> bool:
        """Whether that is known: then nothing is lost there, and nothing of ours runs."""
        try:
            return site.machines.machine(host).powered() is False
        except HostFailure:
            return False

    def _gone(self, record: HostRecord, error: str) -> None:
        if record.state is not HostState.UNREACHABLE:
            self._give_up(record, HostState.FAILED, error, gone=True)
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

    def _serves(self, host: str) -> bool:
        """Whether the balancer finds the host well: then it is our way to the agent that is broken, not the agent.

        Where it can't be asked we are blind, and who is blind ends nothing.
        """
        try:
            return any(b.name == host and b.healthy for b in self._hands.door.status().backends)
        except FrontDoorError:
            return True

    def _give_up(self, record: HostRecord, state: HostState, error: str, gone: bool = False) -> None:
        """`gone`: nothing of the agent is left there."""
        self._silent_since.pop(record.name, None)
        calm = record.state is HostState.READY and self._hands.clock.now() - record.since > LAST_RETRY_S
        # what failed before it served this long is forgiven
        failures = (0 if calm else record.failures) + (state is HostState.FAILED)
        # a first crash is mended at once; only repeated ones wait
        delay_s = 0.0 if gone and failures == 1 else retry_delay_s(failures)
        changes: dict[str, object] = {"action_id": None, "agent_port": None} if gone else {}
        self._hands.move(
            record.name,
            state,
            "does not answer" if state is HostState.UNREACHABLE else "its agent is gone",
            error=error,
            failures=failures,
            retry_at=self._hands.clock.now() + delay_s,
            **changes,
        )
