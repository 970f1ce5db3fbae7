"""Who may be picked for which request, kept up to date at each change so that a pick never looks at all hosts. PURE.

What keeps a host from being picked is its own state, read when somebody calls changed() or touch(): not usable or full
hosts stand in no order at all; hosts that differ in models, zone or missing memory stand on different shelves. How to
choose among those that are left is the policy's: one file each beside this one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from heapq import heappop, heappush

from fleet_balancer.ask import Ask
from fleet_balancer.member.member import Member, Watcher
from fleet_balancer.member.shelf import Kind, Shelf
from fleet_balancer.pick.report import credited, foreign_load, lacking
from fleet_balancer.pick.slow_start import next_step, ramp_of
from fleet_wire.balancer import PoolConfig

Shelves = tuple[Shelf[Member], ...]
# Lists of shelves are kept per (model, version) that was asked for: at most this many.
_ASKED_KEPT = 1024
# How many members whose time has come (slow start, old report) one pick brings up to date.
_TENDED = 16


class Picker(Watcher):
    """Chooses among a pool's members. `stale_s`: age at which a report is ignored; `zone`: the balancer's own.

    `size` counts the members that may be picked once they have room.
    """

    def __init__(self, config: PoolConfig, stale_s: float, zone: str | None = None) -> None:
        self.size = 0
        self._needs = {m.name: m.device_memory_bytes for m in config.models if m.device_memory_bytes}
        self._limit = config.max_in_flight_per_server
        self._slow_start_s = config.slow_start_s
        self._stale_s = stale_s
        self._zone = zone
        self._heed_health = True
        self._members: list[Member] = []
        self._shelves: dict[Kind, Shelf[Member]] = {}
        self._asked: dict[tuple[str | None, str | None], tuple[Shelves, Shelves]] = {}
        self._only: Shelf[Member] | None = None
        self._plain = True
        self._turn = 0
        self._due: list[tuple[float, int, Member]] = []
        self._now = 0.0
        self._began: float | None = None

    # What a policy decides.

    def touch(self, member: Member) -> None:
        """Its in-flight count changed: with room it has a place in its shelf's order, without it has none."""
        raise NotImplementedError

    def unseat(self, member: Member, shelf: Shelf[Member]) -> None:
        """Take it out of the order of `shelf`, where it has a place."""
        raise NotImplementedError

    def best(self, shelves: Shelves, ask: Ask | None) -> Member | None:
        """The choice among the members with a place on `shelves`."""
        raise NotImplementedError

    def prefers(self, local: Member, other: Member) -> bool:
        """Whether to stay in the zone: up to twice the load there is better than the way to the next zone."""
        return (local.load + 1) * other.share <= 2.0 * (other.load + 1) * local.share

    def weigh(self, member: Member) -> float:
        """The member's share of the traffic relative to others, without slow start."""
        return member.weight

    def observed(self, member: Member, model: str | None, latency_ms: float, depth: int, now: float) -> None:
        """`member` answered in `latency_ms` a request that made it `depth` in flight there. touch() follows."""

    # What happens to the pool.

    def reset(self, members: Iterable[Member], now: float | None = None) -> None:
        """These, and only these, may be picked from now on, while they are usable and have room."""
        now = self._clock(now)
        members = list(members)
        kept = set(members)
        for member in self._members:
            if member.watcher is self and member not in kept:
                self.forget(member)
                member.watcher = None
        self._members = members
        for member in members:
            if member.watcher is not self:
                if member.watcher is not None:
                    member.watcher.forget(member)
                self.join(member)
                member.watcher = self
        self.compare()
        for member in members:
            self.changed(member, now)

    def join(self, member: Member) -> None:
        """A member is new here."""
        member.due = member.placed = member.draw_at = None
        member.speed = member.ramp = 1.0
        member.lag = member.lag_step = member.learn_at = 0.0
        member.seen = 0
        member.progress_at = member.round_s = member.each_s = member.stuck = 0.0

    def heed(self, health: bool) -> None:
        """Whether only healthy members may be picked; draining ones never are, nor those that never were healthy."""
        if health != self._heed_health:
            self._heed_health = health
            for member in self._members:
                self.changed(member, None)

    def changed(self, member: Member, now: float | None = None) -> None:
        """Something other than its in-flight count changed: health, drain, weight, report, or time has passed."""
        if member.watcher is not self:
            return
        now = self._clock(now)
        if not (member.usable if self._heed_health else member.health.proven and not member.draining):
            self.forget(member)
            return
        if member.shelf is None:
            if not self.size:
                self._began = now
            # Whom panic lets in has to carry its share at once.
            member.since = now if self._heed_health else float("-inf")
        member.limit = 1 if member.trial else member.spec.max_in_flight or self._limit
        report = member.report
        if report is not None and report.at + self._stale_s <= now:
            report = None
        member.fresh = report
        inline = member.inline
        if inline is not None and inline.at + self._stale_s <= now:
            member.inline = inline = None
        member.foreign = foreign_load(member)
        kind = Kind(
            self._zone is None or member.spec.zone == self._zone,
            member.models,
            lacking(member, self._needs, self._stale_s) if self._needs else frozenset(),
        )
        shelf = member.shelf
        if shelf is None or shelf.kind != kind:
            self._move(member, kind)
        began = now if self._began is None else self._began
        member.ramp = ramp_of(member.since, began, now, self._slow_start_s)
        member.share = self.weigh(member) * member.ramp
        due = [] if member.ramp >= 1.0 else [next_step(member.since, now, self._slow_start_s)]
        due += [one.at + self._stale_s for one in (report, inline) if one is not None]
        if due and (member.due is None or min(due) < member.due):
            member.due = min(due)
            self._turn += 1
            heappush(self._due, (member.due, self._turn, member))
        self.touch(member)

    def pick(
        self, model: str | None, now: float, tried: Collection[Member] = (), ask: Ask | None = None
    ) -> Member | None:
        """The best member for `model` that is not among `tried`; None: nobody may take it now."""
        self._now = now
        due = self._due
        if due and due[0][0] <= now:
            self._tend(now)
        if tried:
            return self._pick_untried(model, tried, ask)
        if self._only is not None and self._plain:
            return self.best((self._only,), ask)
        return self._pick(model, ask)

    def took(self, member: Member, model: str | None, now: float) -> None:
        """`member` got a request for `model`: what that will need there counts until a report shows it."""
        if model is not None and credited(member, model, self._needs, now):
            self.changed(member, now)

    # Shelves.

    def _pick(self, model: str | None, ask: Ask | None) -> Member | None:
        version = None if ask is None or model is None else ask.version
        if self._plain:
            model = version = None
        found = self._asked.get((model, version))
        if found is None:
            found = self._look_up(model, version)
        near, far = found
        local = self.best(near, ask) if near else None
        if not far:
            return local
        other = self.best(far, ask)
        if local is None or other is None:
            return local or other
        return local if self.prefers(local, other) else other

    def _look_up(self, model: str | None, version: str | None) -> tuple[Shelves, Shelves]:
        able = [shelf for kind, shelf in self._shelves.items() if kind.serves(model, version)]
        found = self.split(able)
        if len(self._asked) >= _ASKED_KEPT:
            self._asked.clear()
        self._asked[(model, version)] = found
        return found

    def split(self, shelves: list[Shelf[Member]]) -> tuple[Shelves, Shelves]:
        """Those in the balancer's zone, and the others."""
        return tuple(s for s in shelves if s.kind.local), tuple(s for s in shelves if not s.kind.local)

    def _pick_untried(self, model: str | None, tried: Collection[Member], ask: Ask | None) -> Member | None:
        chosen = self._pick(model, ask)
        if chosen is None or chosen not in tried:
            return chosen
        aside = [m for m in tried if m.watcher is self and m.shelf is not None]
        for member in aside:
            if member.shelf is not None:
                self.unseat(member, member.shelf)
        chosen = self._pick(model, ask)
        for member in aside:
            self.touch(member)
        return chosen

    def _move(self, member: Member, kind: Kind) -> None:
        self.leave(member)
        shelf = self._shelves.get(kind)
        if shelf is None:
            shelf = self._shelves[kind] = Shelf(kind)
            self._shelves_changed()
        shelf.count += 1
        member.shelf = shelf
        self.size += 1

    def forget(self, member: Member) -> None:
        """It may not be picked any more."""
        self.leave(member)
        member.shelf = None
        if not self.size:
            self._began = None

    def leave(self, member: Member) -> None:
        """Take a member off its shelf."""
        shelf = member.shelf
        if shelf is None:
            return
        self.unseat(member, shelf)
        self.size -= 1
        shelf.count -= 1
        if not shelf.count:
            del self._shelves[shelf.kind]
            self._shelves_changed()

    def _shelves_changed(self) -> None:
        self._asked.clear()
        shelves = list(self._shelves.values())
        self._only = shelves[0] if len(shelves) == 1 else None
        self._plain = not any(kind.models or kind.lacking for kind in self._shelves)

    # Time.

    def _clock(self, now: float | None) -> float:
        if now is not None and now > self._now:
            self._now = now
        return self._now

    def _tend(self, now: float) -> None:
        due = self._due
        for _ in range(_TENDED):
            if not due or due[0][0] > now:
                return
            at, _, member = heappop(due)
            if member.due == at:
                member.due = None
                self.changed(member, now)

    def compare(self) -> None:
        """The members are other ones: what weigh() compares may have changed."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.size}/{len(self._members)} on {len(self._shelves)} shelves>"
