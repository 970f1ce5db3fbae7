"""Which hosts are far slower than the others that do the same. PURE.

Every WINDOW_S each host's median latency is compared with that of the group's median host; hosts that serve different
models are different groups. Medians, because request sizes are heavy-tailed: one long request says nothing. A host is
an outlier where it was above `factor` times the median host in PERSISTS windows in a row, with at least LEAST requests
in each; differences below FLOOR_MS are no matter. A host that is 2 or 4 times slower is what routing is for, not this.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from statistics import median, median_low

WINDOW_S = 5.0
PERSISTS = 2
LEAST = 20
FLOOR_MS = 20.0
# Of each host at most this many latencies a window are kept.
MOST = 256


class Outliers:
    """Hosts are any hashable thing here; the caller gives them in `groups`."""

    def __init__(self) -> None:
        self._latencies: dict[Hashable, list[float]] = {}
        self._strikes: dict[Hashable, int] = {}
        self._since: float | None = None

    def learn(self, served: Iterable[tuple[Hashable, float]]) -> None:
        """Hosts and the latencies (ms) of requests that they completed."""
        latencies = self._latencies
        for host, ms in served:
            kept = latencies.get(host)
            if kept is None:
                latencies[host] = [ms]
            elif len(kept) < MOST:
                kept.append(ms)

    def judge(self, groups: Mapping[Hashable, Hashable], factor: float, now: float) -> dict[Hashable, float]:
        """At a window's end: the outliers and how many times slower than the median host each is; else nothing.

        `groups`: each host and what it has in common with those that it may be compared with.
        """
        if self._since is None:
            self._since = now
        if now - self._since < WINDOW_S:
            return {}
        self._since = now
        latencies, self._latencies = self._latencies, {}
        peers: dict[Hashable, dict[Hashable, float]] = {}
        for host, kept in latencies.items():
            if host in groups and len(kept) >= LEAST:
                peers.setdefault(groups[host], {})[host] = median(kept)
        strikes: dict[Hashable, int] = {}
        found: dict[Hashable, float] = {}
        for medians in peers.values():
            usual = median_low(medians.values())
            for host, ms in medians.items():
                if ms > factor * usual and ms - usual > FLOOR_MS:
                    strikes[host] = self._strikes.get(host, 0) + 1
                    if strikes[host] >= PERSISTS:
                        found[host] = ms / usual if usual > 0 else factor
        self._strikes = strikes
        return found
