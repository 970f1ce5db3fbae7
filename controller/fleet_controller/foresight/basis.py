"""Basis: what a plan rests on, and what of it has moved since. PURE.

A plan is right as long as fleet.yaml, the releases, the fleet's goal and the state of each host are what they were. It
is compared by the controller, which alone moves hosts, right before it begins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict

# Of what moved, a message tells so many.
MOST_TOLD = 12


class HostBasis(BaseModel):
    """One host. `release` is what it runs, `out` whether an operator took it out."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    state: str
    pool: str | None = None
    release: str | None = None
    out: bool = False


class Basis(BaseModel):
    """`file` is the SHA-256 of fleet.yaml. `releases` and `desired` are by pool; `asked` names hosts that are not
    asked for, or keep a release."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fleet: str
    file: str
    goal: str
    releases: Mapping[str, str]
    desired: Mapping[str, int | None]
    hosts: Mapping[str, HostBasis]
    asked: str = ""

    def moved(self, now: Basis) -> list[str]:
        """A sentence for each thing that is not what it was."""
        found = []
        if now.fleet != self.fleet:
            found.append(f"it was made for the fleet {self.fleet}, and this is {now.fleet}")
        if now.file != self.file:
            found.append("fleet.yaml was changed")
        if now.goal != self.goal:
            found.append(f"the fleet was {_goal(self.goal)} and is {_goal(now.goal)} now")
        if now.asked != self.asked:
            found.append("another `up` or `down` has asked for other hosts since")
        for pool in sorted(self.releases.keys() & now.releases.keys()):
            if self.releases[pool] != now.releases[pool]:
                before, after = self.releases[pool], now.releases[pool]
                found.append(
                    f"pool {pool}: release {after} would be installed, not {before}: a model or fleetctl changed"
                )
        for pool in sorted(self.desired.keys() & now.desired.keys()):
            if self.desired[pool] != now.desired[pool]:
                before_n, after_n = _count(self.desired[pool]), _count(now.desired[pool])
                found.append(f"pool {pool} wanted {before_n} and wants {after_n} now")
        for name in sorted(self.hosts.keys() | now.hosts.keys()):
            found += _host(name, self.hosts.get(name), now.hosts.get(name))
        return found


def stale(moved: Sequence[str]) -> str:
    """The one message that says what moved and what to do."""
    told = [f"  {text}" for text in moved[:MOST_TOLD]]
    if len(moved) > MOST_TOLD:
        told.append(f"  and {len(moved) - MOST_TOLD} more")
    return "\n".join(
        [
            "the plan does not fit any more, and nothing was done:",
            *told,
            "look at what `fleetctl plan --out FILE` says now, and apply that",
        ]
    )


def _host(name: str, before: HostBasis | None, now: HostBasis | None) -> list[str]:
    if before is None or now is None:
        return [f"{name} is not in the plan" if before is None else f"{name} is no longer in fleet.yaml"]
    found = []
    if before.state != now.state:
        found.append(f"{name} was {before.state} and is {now.state} now")
    if before.release != now.release and None not in (before.release, now.release):
        found.append(f"{name} ran release {before.release} and runs {now.release} now")
    if before.pool != now.pool and before.state == now.state:
        found.append(f"{name} served pool {before.pool or '-'} and serves {now.pool or '-'} now")
    if before.out != now.out:
        found.append(f"{name} was {'drained' if now.out else 'uncordoned'} by an operator")
    return found


def _goal(goal: str) -> str:
    return "up" if goal == "up" else "down"


def _count(desired: int | None) -> str:
    return "an unknown number of servers" if desired is None else f"{desired} server{'s' * (desired != 1)}"
