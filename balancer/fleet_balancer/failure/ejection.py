"""Which hosts of a pool are taken out by what their answers say, although their probes pass. PURE.

A host is ejected after so many failures in a row, or as a latency outlier (outlier.py); its breaker (breaker.py) says
for how long, and lets it back through trials. What holds whatever happens:

- at most `max_share` of the pool's hosts are out by ejection at once (but one may always be, unless the share is 0);
- never the last host: where no other host is in use, a failing one stays;
- where probes take out all that was left, the ejected ones serve all the same ("pardoned"): bad answers beat none.

A request that makes every host fail (a "poison" request) therefore takes out half of the pool at worst.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, TypedDict

from fleet_balancer.failure.outcome import Outcome
from fleet_balancer.failure.outlier import Outliers
from fleet_balancer.member.breaker import Breaker
from fleet_balancer.member.member import Member
from fleet_wire.balancer import Ejection, Figure

MOST_NEWS = 100
# Of a busy pool this many latencies at a time are looked at: they are consecutive, so no host is passed over.
LATEST = 2000


class EjectedHost(TypedDict):
    """One host's ejection as plain values, for a file: seconds are counted from now on, so no clock is in it."""

    name: str
    address: str
    state: Literal["closed", "open", "half_open"]
    left_s: float
    times: int
    reason: str


class Ejector:
    """The breakers of one pool's hosts. Methods that return hosts name those whose use changed: tell the picker."""

    def __init__(self, rule: Ejection) -> None:
        self.rule = rule
        self.ejections = 0
        self.panic = False
        self._members: Sequence[Member] = ()
        self._marked: list[Member] = []
        self._outliers = Outliers()
        self._news: list[str] = []

    def configure(self, rule: Ejection) -> list[Member]:
        """A new rule. Times that run go on as they were given."""
        self.rule = rule
        return self.replace(self._members)

    def replace(self, members: Sequence[Member]) -> list[Member]:
        """These are the pool's hosts now; who came from another pool brings its breaker along."""
        self._members = members
        self._marked = [m for m in members if m.breaker is not None]
        for member in self._marked:
            breaker = _breaker(member)
            breaker.rule = self.rule
            if not self.rule.enabled:
                breaker.forget()
        # Who has the least time left is let in where the pool has become too small for so many to be out.
        out = sorted((m for m in self._marked if _is_out(m)), key=_until)
        for member in out[: max(0, len(out) - self._most())]:
            breaker = _breaker(member)
            breaker.close(breaker.since)
        changed = self._review()
        self._drop_blank()
        return changed

    # What requests say.

    def failed(self, member: Member, outcome: Outcome, now: float) -> list[Member]:
        """`member` failed a request ("error", "resent") or declined it ("busy"); other outcomes say nothing."""
        if outcome not in ("error", "resent", "busy") or not self.rule.enabled:
            return []
        breaker = member.breaker
        if breaker is None:
            breaker = member.breaker = Breaker(self.rule, now)
            self._marked.append(member)
        busy = outcome == "busy"
        if not (breaker.was_busy() if busy else breaker.failed()):
            return []
        again = breaker.state == "half_open"
        if busy:
            reason = "it declined every request with 503 and Retry-After"
        elif again:
            reason = "its trial request failed"
        else:
            reason = f"{breaker.failures} failures in a row"
        return self._eject(member, reason, now, busy=busy)

    def succeeded(self, member: Member, now: float) -> list[Member]:
        """`member` served a request. Only to be called where it has a breaker."""
        breaker = member.breaker
        if breaker is None:
            return []
        if breaker.succeeded(now):
            self._tell(f"host {member.name} passed its trials and is in use again")
            return self._review()
        if breaker.blank:
            self._drop_blank()
        return []

    def learn(self, hosts: Sequence[Member], latencies_ms: Sequence[float]) -> None:
        """Which host completed a request, and how long each took, since the last call; of many, LATEST do."""
        if self.watches_latency:
            self._outliers.learn(zip(hosts, latencies_ms, strict=True))

    @property
    def watches_latency(self) -> bool:
        return self.rule.enabled and self.rule.latency_factor is not None and len(self._members) > 1

    # What time says.

    def advance(self, now: float) -> list[Member]:
        """To be called a few times a second: opens trials, forgets old ejections, looks for outliers."""
        changed: list[Member] = []
        if self.watches_latency and self.rule.latency_factor is not None:
            groups: dict[Hashable, Hashable] = {m: frozenset(m.spec.models) for m in self._members}
            for host, times in self._outliers.judge(groups, self.rule.latency_factor, now).items():
                if isinstance(host, Member) and not _is_out(host):
                    if host.breaker is None:
                        host.breaker = Breaker(self.rule, now)
                        self._marked.append(host)
                    changed += self._eject(host, f"it is {times:.1f} times slower than the others", now)
        if not self._marked:
            return changed
        tried = [m for m in self._marked if _breaker(m).advance(now)]
        self._drop_blank()
        return changed + self._review() if tried else changed

    def reviewed(self) -> list[Member]:
        """A host's health or drain changed: whether ejections still hold may hang on that."""
        return self._review() if self._marked else []

    def panics(self, share: float) -> bool:
        """Whether fewer than `share` of the hosts that were ever healthy and don't drain are in use: then rather all.

        As Envoy's panic threshold: so many at once are more likely a fault of the probes, or of the path to the hosts,
        and what is left would break under the load of all.
        """
        hosts = [m for m in self._members if m.health.proven and not m.draining] if share else []
        panic = sum(m.usable for m in hosts) < share * len(hosts)
        if panic != self.panic:
            self.panic = panic
            said = "health is ignored" if panic else "health counts again"
            self._tell(f"{said}: {sum(m.usable for m in hosts)} of {len(hosts)} hosts are in use")
        return panic

    # For people and for files.

    def figures(self, pool: str) -> list[Figure]:
        """For /metrics."""
        labels = {"pool": pool}
        return [
            Figure(
                name="ejections",
                kind="counter",
                help="Hosts taken out by what they answered",
                labels=labels,
                value=self.ejections,
            ),
            Figure(
                name="panic",
                kind="gauge",
                help="1: so few hosts are healthy that health is ignored",
                labels=labels,
                value=float(self.panic),
            ),
        ]

    def news(self) -> list[str]:
        """What happened since the last call, in sentences (the latest MOST_NEWS)."""
        news, self._news = self._news, []
        return news

    def to_state(self, now: float) -> list[EjectedHost]:
        """What should survive a crash."""
        return [
            EjectedHost(
                name=m.name,
                address=m.address,
                state=b.state,
                left_s=max(0.0, b.until - now) if b.state == "open" else 0.0,
                times=b.times,
                reason=b.reason,
            )
            for m in self._marked
            if (b := _breaker(m)).state != "closed" or b.times
        ]

    def restore(self, state: Iterable[EjectedHost], now: float) -> list[Member]:
        """Take up what to_state gave, after replace(); hosts that are not here any more are passed over.

        Values that make no sense are read as the nearest that do, for a file may be anything.
        """
        if not self.rule.enabled:
            return []
        here = {(m.name, m.address): m for m in self._members}
        for saved in state:
            member = here.get((saved["name"], saved["address"]))
            if member is None or member.breaker is not None:
                continue
            breaker = Breaker(self.rule, now)
            breaker.restore(saved["state"], saved["left_s"], saved["times"], saved["reason"], now)
            if not breaker.blank:
                member.breaker = breaker
        return self.replace(self._members)

    def __repr__(self) -> str:
        return f"<Ejector {sum(_is_out(m) for m in self._marked)}/{len(self._members)} out>"

    # How.

    def _eject(self, member: Member, reason: str, now: float, *, busy: bool = False) -> list[Member]:
        others = sum(_is_out(m) for m in self._marked if m is not member)
        if member not in self._members or others >= self._most() or not self._spares(member):
            return []
        seconds = _breaker(member).open(now, reason, busy=busy)
        self.ejections += 1
        self._tell(f"host {member.name} is ejected for {seconds:g} s: {reason}")
        return self._review()

    def _most(self) -> int:
        """How many hosts may be out at once."""
        hosts = len(self._members)
        if not self.rule.max_share or hosts < 2:
            return 0
        return min(hosts - 1, max(1, math.floor(self.rule.max_share * hosts + 1e-9)))

    def _spares(self, member: Member) -> bool:
        """Whether the pool can do without `member`: another host is in use, and not on trial."""
        return any(m is not member and _could_serve(m) and not _is_out(m) for m in self._members)

    def _review(self) -> list[Member]:
        """Set what the picker sees, from the breakers. Returns who changed."""
        pardon = not any(_could_serve(m) and not _is_out(m) for m in self._members)
        changed: list[Member] = []
        for member in self._marked:
            breaker = member.breaker
            ejected = breaker is not None and breaker.state == "open" and not pardon
            trial = breaker is not None and breaker.state == "half_open" and not pardon
            if (ejected, trial) != (member.ejected, member.trial):
                member.ejected, member.trial = ejected, trial
                changed.append(member)
        return changed

    def _drop_blank(self) -> None:
        for member in self._marked:
            if _breaker(member).blank:
                member.breaker = None
        self._marked = [m for m in self._marked if m.breaker is not None]

    def _tell(self, sentence: str) -> None:
        self._news = [*self._news[1 - MOST_NEWS :], sentence]


def _breaker(member: Member) -> Breaker:
    if member.breaker is None:
        raise AssertionError(f"{member!r} is marked and has no breaker")
    return member.breaker


def _is_out(member: Member) -> bool:
    return member.breaker is not None and member.breaker.state != "closed"


def _until(member: Member) -> float:
    return _breaker(member).until


def _could_serve(member: Member) -> bool:
    return member.health.healthy and not member.draining
