"""What may be asked and changed at the admin address, whoever serves: this process alone, or its workers.

Changes come one after the other. Each is first in force, then in the state file, then answered.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from typing import Protocol

from fleet_balancer.process.condition import Condition
from fleet_balancer.process.statefile import SavedState, StateKeeper
from fleet_balancer.roster import Roster
from fleet_balancer.telemetry.merge import merge
from fleet_wire.balancer import BackendList, BalancerStatus
from fleet_wire.refusal import Refusal

log = logging.getLogger(__name__)


# Of names in a line of the log.
MOST = 10


class Plane(Protocol):
    """Whoever serves."""

    async def replace(self, backends: BackendList, *, lenient: bool) -> None: ...
    async def status(self) -> BalancerStatus: ...
    async def condition(self) -> Condition: ...
    async def in_flight(self) -> dict[str, int]: ...


class Past(Protocol):
    """The process before this one: what it still does and has done; None where there is none, or nothing."""

    async def status(self) -> BalancerStatus | None: ...


class Desk:
    """`started_at`: since when the counters count, over hand-overs. `reload` starts a new process."""

    def __init__(
        self,
        plane: Plane,
        roster: Roster,
        keeper: StateKeeper | None,
        past: Past | None,
        reload: Callable[[], Awaitable[int]],
        *,
        started_at: float,
        endpoint: str,
    ) -> None:
        self.roster = roster
        self.reload = reload
        self.started_at = started_at
        self._plane = plane
        self._keeper = keeper
        self._past = past
        self._endpoint = endpoint
        self._changing = asyncio.Lock()
        self._given_away = False
        self._saved: tuple[Roster, set[tuple[str, str, str, str, int]]] | None = None

    async def put(self, backends: BackendList) -> None:
        """Swap the whole list in. Raises Refusal where it contradicts itself; then nothing has changed."""
        before = {b.name for b in self.roster.given.backends}
        await self._change(lambda roster: roster.put(backends))
        after = {b.name for b in backends.backends}
        for what, names in (("new", after - before), ("gone", before - after)):
            if names:
                log.info("list of %d hosts: %s: %s", len(after), what, _named(names))

    async def drain(self, name: str) -> None:
        await self._change(lambda roster: roster.drain(name))
        log.info("host %s is drained: an operator asked for it", name)

    async def undrain(self, name: str) -> None:
        await self._change(lambda roster: roster.undrain(name))
        log.info("host %s is not drained any more: an operator asked for it", name)

    async def weigh(self, name: str, weight: float | None) -> None:
        await self._change(lambda roster: roster.weigh(name, weight))
        said = "that the list says" if weight is None else f"{weight:g}"
        log.info("host %s has the weight %s: an operator asked for it", name, said)

    async def status(self) -> BalancerStatus:
        """What is served now and was served since `started_at`, by all processes together."""
        serving = await self._plane.status()
        before = None if self._past is None else await self._past.status()
        whole = merge([serving], [] if before is None else [before])
        return whole.model_copy(
            update={"pid": os.getpid(), "started_at": self.started_at, "endpoint": self._endpoint}
        )

    async def save(self) -> None:
        """Bring the state file up to date, where a list, an operator's word or an ejection is new.

        How long an ejection still lasts changes with the clock: that alone is not worth a write.
        """
        if self._keeper is None or self._given_away:
            return
        ejections = (await self._plane.condition()).ejections
        known: set[tuple[str, str, str, str, int]] = {
            (pool, e.name, e.address, e.state, e.times) for pool, of in ejections.items() for e in of
        }
        if self._saved is not None and self._saved[0] is self.roster and self._saved[1] == known:
            return
        self._saved = (self.roster, known)
        await self._keeper.keep(SavedState(roster=self.roster, condition=Condition(ejections=ejections)))

    async def give_away(self) -> SavedState:
        """What the next process begins with. Changes wait from now on; take_back() lets them go on here."""
        await self._changing.acquire()
        self._given_away = True
        return SavedState(roster=self.roster, condition=await self._plane.condition())

    def take_back(self) -> None:
        """The next process did not come up."""
        if self._given_away:
            self._given_away = False
            self._changing.release()

    def close(self) -> None:
        """The next process serves: who still wants to change something here is sent there."""
        if self._given_away and self._changing.locked():
            self._changing.release()

    async def _change(self, change: Callable[[Roster], Roster]) -> None:
        async with self._changing:
            if self._given_away:
                raise Refusal("unavailable", "another process has just taken over: ask again", 1.0)
            changed = change(self.roster)
            await self._plane.replace(changed.effective(), lenient=changed.lenient)
            self.roster = changed
            await self.save()


def _named(names: set[str]) -> str:
    rest = len(names) - MOST
    return ", ".join(sorted(names)[:MOST]) + (f" and {rest} more" if rest > 0 else "")
