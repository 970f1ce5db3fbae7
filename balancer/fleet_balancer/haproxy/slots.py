"""Which host stands in which of HAProxy's prepared places. PURE.

HAProxy's servers are made with its configuration, and changed while it runs: so each pool has more places than hosts. A
host keeps its place as long as it stays. A place that became free is given out again last, so that what its last
occupant still has in flight is over by then.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

LEAST = 8

Host = TypeVar("Host")


class Slots(Generic[Host]):
    """The places of one pool, which are named `prefix` + 1, 2, 3..."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.size = 0
        self.places: dict[str, Host] = {}
        self._of: dict[Host, str] = {}
        self._free: list[str] = []

    def size_for(self, hosts: Iterable[Host]) -> int:
        """How many places there must be so that these hosts, and only these, have one. More than `size`: HAProxy needs
        a new configuration first."""
        hosts = set(hosts)
        new = sum(host not in self._of for host in hosts)
        free = len(self._free) + sum(host not in hosts for host in self._of)
        return self.size if self.size and new <= free else max(LEAST, 2 * self.size, 2 * len(hosts))

    def seat(self, hosts: Iterable[Host]) -> None:
        """Give these hosts, and only these, a place."""
        hosts = list(hosts)
        size = self.size_for(hosts)
        here = set(hosts)
        for host in [h for h in self._of if h not in here]:
            name = self._of.pop(host)
            del self.places[name]
            self._free.append(name)
        self._free[:0] = [f"{self.prefix}{n}" for n in range(self.size + 1, size + 1)]
        self.size = size
        for host in hosts:
            if host not in self._of:
                name = self._free.pop(0)
                self._of[host] = name
                self.places[name] = host

    def place_of(self, host: Host) -> str:
        """Raises KeyError for a host without a place."""
        return self._of[host]
