"""Operation: the bounds of one `up` or `down`, which of the wanted steps they admit, and when it is over. PURE.

`--limit` and a plan file say which hosts it may touch, `--parallel` how many at once (Ansible's `serial`), `--max-fail`
after how many failed hosts nothing new is begun (pytest's `--maxfail`; Ansible's `max_fail_percentage`). All of it is
decided from the records, so nothing is lost when the controller is killed between two steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet_controller.lifecycle import HostState
from fleet_controller.plan import Step
from fleet_controller.records import HostRecord

BROKEN = frozenset({HostState.FAILED, HostState.UNREACHABLE})
# What a plan file may have the controller do with a host.
Change = Literal["start", "stop", "replace"]
_STEPS: Mapping[str, frozenset[str]] = {
    "start": frozenset({"start"}),
    "stop": frozenset({"stop"}),
    "replace": frozenset({"start", "stop"}),
}


class Bounds(BaseModel):
    """What an operator asked. `hosts` None: all. `max_fail` counts hosts, `max_fail_percent` is of those it may touch.

    `planned`: the plan file's hosts, and what is to become of each; nothing else is done.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = ""
    by: str = ""
    hosts: tuple[str, ...] | None = None
    parallel: int | None = Field(default=None, ge=1)
    max_fail: int | None = Field(default=None, ge=1)
    max_fail_percent: float | None = Field(default=None, ge=0, le=100)
    planned: Mapping[str, Change] | None = None


class Operation(BaseModel):
    """One `up` or `down` on its way. `failed` maps hosts to what they said; `left` are those it did not come to.

    `outcome` is "" while it goes on; "halted": too many failed.
    """

    model_config = ConfigDict(frozen=True)

    kind: Literal["up", "down"]
    since: float
    bounds: Bounds = Bounds()
    touches: int = 0
    failed: Mapping[str, str] = {}
    left: tuple[str, ...] = ()
    outcome: Literal["", "done", "halted"] = ""
    ended_at: float | None = None

    @property
    def over(self) -> bool:
        return bool(self.outcome)

    @property
    def most_failures(self) -> int | None:
        """So many failed hosts, and nothing new is begun; None: however many."""
        found = []
        if self.bounds.max_fail is not None:
            found.append(self.bounds.max_fail)
        if self.bounds.max_fail_percent is not None:
            found.append(max(1, math.ceil(self.bounds.max_fail_percent * self.touches / 100)))
        return min(found, default=None)

    @property
    def halted(self) -> bool:
        """Whether so many failed that nothing new is begun."""
        most = self.most_failures
        return most is not None and len(self.failed) >= most

    @property
    def holds(self) -> bool:
        """Whether its bounds are in force. Those of a `down` that halted are until somebody asks for something else."""
        return not self.over or (
            self.kind == "down" and self.bounds.hosts is None and self.outcome == "halted"
        )

    def may_touch(self, host: str) -> bool:
        if self.bounds.planned is not None:
            return host in self.bounds.planned
        return self.bounds.hosts is None or host in self.bounds.hosts

    def heard(self, records: Mapping[str, HostRecord]) -> Operation:
        """With the hosts that failed since it began. One that comes back later is still counted."""
        found = {
            name: record.error or record.reason
            for name, record in records.items()
            if self.may_touch(name) and record.state in BROKEN
            if record.since >= self.since or record.retry_at > self.since
        }
        if found.keys() <= self.failed.keys():
            return self
        return self.model_copy(update={"failed": {**found, **self.failed}})

    def admitted(self, steps: Iterable[Step]) -> list[Step]:
        """Those of `steps` that may begin, a second try after all others. Looks are always allowed."""
        if not self.holds:
            return list(steps)
        looks, wanted = [], []
        for step in steps:
            if step.kind == "inspect":
                looks.append(step)
            elif self.wants(step) and not self.halted:
                wanted.append(step)
        wanted.sort(key=lambda step: step.host in self.failed)  # stable
        return [*looks, *wanted]

    def wants(self, step: Step) -> bool:
        """Whether such a step is what was asked for, whenever it may begin."""
        if self.bounds.planned is not None:
            change = self.bounds.planned.get(step.host)
            # a plan is carried out once: who failed is mended by the controller's ordinary work afterwards
            return change is not None and step.kind in _STEPS[change] and step.host not in self.failed
        return self.may_touch(step.host)

    def unfinished(
        self, steps: Iterable[Step], acting: Collection[str], looked_at: Collection[str]
    ) -> list[str]:
        """Hosts that it waits for: worked on, lost and being looked for, or still to be begun; in that order."""
        mine = [name for name in (*acting, *looked_at) if self.may_touch(name)]
        if not self.halted:
            mine += [
                s.host for s in steps if s.kind != "inspect" and s.host not in self.failed and self.wants(s)
            ]
        return list(dict.fromkeys(mine))

    def ended(
        self,
        wanted: Iterable[str],
        now: float,
        reached: Callable[[str, Change], bool] = lambda host, change: True,
    ) -> Operation:
        """Over: nothing is left to do, or nothing may be begun any more. `wanted`: hosts for which plan wants a step.

        `reached`: whether a planned host is what it was to become.
        """
        left: list[str] = []
        if self.bounds.planned is not None:
            changes = self.bounds.planned.items()
            left = [h for h, change in changes if h not in self.failed and not reached(h, change)]
        elif self.halted:
            left = [host for host in wanted if self.may_touch(host) and host not in self.failed]
        outcome = "halted" if self.halted else "done"
        return self.model_copy(
            update={"outcome": outcome, "ended_at": now, "left": tuple(dict.fromkeys(left))}
        )

    def told(self) -> dict[str, object]:
        """For `fleetctl status`."""
        bounds = self.bounds
        return {
            "id": bounds.id,
            "kind": self.kind,
            "by": bounds.by,
            "since": self.since,
            "hosts": None if bounds.hosts is None else list(bounds.hosts),
            "planned": None if bounds.planned is None else dict(bounds.planned),
            "parallel": bounds.parallel,
            "most_failures": self.most_failures,
            "failed": dict(self.failed),
            "left": list(self.left),
            "outcome": self.outcome or None,
            "ended_at": self.ended_at,
        }
