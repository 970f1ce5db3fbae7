"""Observe: ask every agent and the balancer how they are. The noun handed on is Observation."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Executor, Future, wait
from dataclasses import dataclass

import urllib3
from pydantic import ValidationError

from fleet_controller.door.admin import FrontDoor, FrontDoorError, spoken
from fleet_wire.agent import AgentStatus
from fleet_wire.balancer import BalancerStatus

ANSWER_LIMIT_BYTES = 1024 * 1024
TIMEOUT = urllib3.Timeout(connect=1.0, read=2.0)
# TIMEOUT's read is for each piece of an answer; this is for all answers of one look together.
PATIENCE_S = 10.0


@dataclass(frozen=True)
class Target:
    """An agent to ask: its URL and bearer token."""

    url: str
    token: str


@dataclass(frozen=True)
class HostReport:
    """One agent's answer, or in `error` why there is none."""

    status: AgentStatus | None
    error: str | None


@dataclass(frozen=True)
class Observation:
    """Everything seen in one look at the fleet; `at` in Unix seconds. A host that was not asked is not in `hosts`."""

    at: float
    hosts: Mapping[str, HostReport]
    balancer: BalancerStatus | None
    balancer_error: str | None

    def in_flight(self) -> dict[str, int]:
        """Requests in flight per host, by the balancer's own count where there is one; absent: not known."""
        counts = {
            name: report.status.in_flight + report.status.queued
            for name, report in self.hosts.items()
            if report.status is not None
        }
        if self.balancer is not None:
            counts |= {b.name: b.in_flight for b in self.balancer.backends}
        return counts


class Observer:
    """Asks over HTTP. Agents are not trusted: answers are bounded in time and size, and no redirect is followed."""

    def __init__(self, executor: Executor) -> None:
        self._executor = executor
        self._late: dict[str, Future[HostReport]] = {}
        self._http = urllib3.PoolManager(num_pools=64, maxsize=4, retries=False)

    def look(self, targets: Mapping[str, Target], door: FrontDoor, now: float) -> Observation:
        """Ask all at once and wait for every answer or its time-out, and for none longer than PATIENCE_S.

        Who is still at the answer to an earlier look (an agent that sends a byte now and then) is not asked again.
        """
        until = time.monotonic() + PATIENCE_S
        self._late = {name: answer for name, answer in self._late.items() if not answer.done()}
        asked = {
            name: self._executor.submit(self.ask, target)
            for name, target in targets.items()
            if name not in self._late
        }
        balancer, balancer_error = None, None
        try:
            balancer = door.status()
        except FrontDoorError as error:
            balancer_error = str(error)
        wait(asked.values(), timeout=max(0.0, until - time.monotonic()))
        reports = {}
        for name, target in targets.items():
            answer = asked.get(name)
            if answer is not None and answer.done():
                reports[name] = answer.result()
                continue
            reports[name] = HostReport(None, f"{target.url} did not answer within {PATIENCE_S:.0f} s")
            if answer is not None and not answer.cancel():
                self._late[name] = answer
        return Observation(now, reports, balancer, balancer_error)

    def ask(self, target: Target) -> HostReport:
        """One agent's status. Never raises: what went wrong is in the report."""
        try:
            answer = self._http.request(
                "GET",
                target.url + "/status",
                headers={"authorization": f"Bearer {target.token}"},
                timeout=TIMEOUT,
                redirect=False,
                preload_content=False,
            )
            try:
                body = answer.read(ANSWER_LIMIT_BYTES + 1)
            finally:
                answer.release_conn()
        except urllib3.exceptions.HTTPError as error:
            return HostReport(None, f"{target.url} does not answer: {spoken(error)}")
        if answer.status != 200:
            return HostReport(None, f"{target.url}/status answers {answer.status}")
        if len(body) > ANSWER_LIMIT_BYTES:
            answer.close()
            return HostReport(None, f"{target.url}/status answers with more than {ANSWER_LIMIT_BYTES} bytes")
        try:
            return HostReport(AgentStatus.model_validate_json(body), None)
        except ValidationError as error:
            return HostReport(
                None, f"{target.url}/status is not an agent's status: {error.errors()[0]['msg']}"
            )
