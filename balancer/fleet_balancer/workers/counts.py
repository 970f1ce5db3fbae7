"""Requests in flight, and the API keys' rates, in memory that all workers share (memfd_create(2)).

One row of 32-bit counts per worker, one slot per host. A worker writes only its own row, at once where a count changes
(an aligned store, which no reader sees half of), and reads the others' when it looks: no lock, no message, nothing to
repair when one of them is killed, but to set its row to zero. The row after the workers' is the supervisor's: what the
process before it still has in flight.

Slot 0 says how many requests wait at a worker. Where some wait at several, a host's bound on requests at once is dealt
out among them, turn by turn: else a worker would give what it frees to its own queue, and the others' would never move.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterable, Iterator, Mapping, MutableSequence, Sequence
from typing import cast

from fleet_balancer.access.keys import SLOTS as KEY_SLOTS
from fleet_balancer.member.member import Member

# Hosts that fit, and one. A slot that became free is used again only after all others: who still finishes on the old
# host writes there.
SLOTS = 65536
# The others' rows are read again after this many seconds; with many hosts as rarely as keeps the share of time below.
FRESH_S = 0.002
_COST_S = 5e-9
_SHARE = 0.02
# A look at every host, one by one, which is needed only while requests wait at several workers.
_EACH_COST_S = 400e-9
# Rows are compared in blocks, and blocks in pieces, of so many bytes: only hosts of a piece that differs are looked at.
_BLOCK = 2048
_PIECE = 64
# How long one worker has the odd place of a bound that does not divide evenly.
TURN_S = 0.05


class SharedCounts:
    """The memory. `rows`: workers and one more. A process that maps it anew gives its `descriptor`."""

    def __init__(self, rows: int, descriptor: int | None = None) -> None:
        self.rows = rows
        size = rows * SLOTS * 4 + KEY_SLOTS * 8
        if descriptor is None:
            descriptor = os.memfd_create("fleet-balancer")
            os.ftruncate(descriptor, size)
        self.descriptor = descriptor
        self._whole = memoryview(mmap.mmap(descriptor, size))

    def row(self, number: int) -> memoryview[int]:
        return self._bytes(number).cast("i")

    def keys(self) -> MutableSequence[float]:
        """The API keys' rates (see keys)."""
        return cast(MutableSequence[float], self._whole[self.rows * SLOTS * 4 :].cast("d"))

    def clear(self, number: int) -> None:
        """Nothing is in flight by this worker (any more)."""
        self._bytes(number)[:] = bytes(SLOTS * 4)

    def _bytes(self, number: int) -> memoryview[int]:
        return self._whole[number * SLOTS * 4 : (number + 1) * SLOTS * 4]


class SlotTable:
    """Which host has which slot, by host_key(). Slots are given round and round, so that none is used again soon."""

    def __init__(self) -> None:
        self.slots: dict[str, int] = {}
        self._next = 1

    def assign(self, hosts: Iterable[str]) -> None:
        """Slots for exactly these hosts; who had one keeps it. Raises ValueError for more than fit."""
        wanted = dict.fromkeys(hosts)
        if len(wanted) >= SLOTS:
            raise ValueError(f"{len(wanted)} hosts; with several workers at most {SLOTS - 1} fit")
        self.slots = {host: slot for host, slot in self.slots.items() if host in wanted}
        taken = set(self.slots.values())
        for host in wanted:
            if host not in self.slots:
                while self._next in taken:
                    self._next = self._next % (SLOTS - 1) + 1
                self.slots[host] = self._next
                self._next = self._next % (SLOTS - 1) + 1


class Crowd:
    """One worker's view: writes its row, and brings `Member.elsewhere` up to date from the others'."""

    def __init__(self, counts: SharedCounts, number: int) -> None:
        self._number = number
        self._own = counts.row(number)
        self._others = [i for i in range(counts.rows) if i != number]
        self._rows = [counts.row(i) for i in self._others]
        self._bytes = [row.cast("B") for row in self._rows]
        self._members: list[tuple[int, Member]] = []
        self._at: dict[int, Member] = {}
        self._low = self._high = 0
        self._seen: list[bytes] = []
        self._rivals: list[int] = []
        self._pause_s = FRESH_S
        self._due = 0.0

    def seat(self, members: Iterable[Member], slots: Mapping[str, int], key: Mapping[Member, str]) -> None:
        """These are the hosts now, each with its slot."""
        self._members = [(slots[key[m]], m) for m in members]
        for slot, member in self._members:
            member.row, member.slot = self._own, slot
            self._own[slot] = member.in_flight
        self._at = dict(self._members)
        self._low, self._high = min(self._at, default=0), max(self._at, default=-1) + 1
        self._seen = []
        self._pause_s = max(FRESH_S, (self._high - self._low) * len(self._rows) * _COST_S / _SHARE)
        self._due = 0.0

    def wait(self, requests: int) -> None:
        """So many requests wait at this worker."""
        self._own[0] = requests

    def refresh(self, now: float) -> bool:
        """Look at the others' counts, unless that was just done; whether any had changed. `now`: monotonic seconds."""
        if now < self._due:
            return False
        self._due = now + self._pause_s
        low, high = self._low, self._high
        seen = [view[low * 4 : high * 4].tobytes() for view in self._bytes]
        rivals = [number for number, row in zip(self._others, self._rows, strict=True) if row[0]]
        if seen == self._seen and not rivals and not self._rivals:
            return False
        all_of_them = rivals or self._rivals or not self._seen
        if rivals:
            self._due = now + max(self._pause_s, len(self._members) * _EACH_COST_S / _SHARE)
        at = self._members if all_of_them else list(self._moved(seen))
        self._seen, self._rivals = seen, rivals
        counts = [memoryview(row).cast("i") for row in seen]
        changed = False
        for slot, member in at:
            count = sum([row[slot - low] for row in counts])
            if rivals and member.limit is not None:
                count = max(count, member.limit - self._share(member.limit, now))
            if count != member.elsewhere:
                changed = True
                member.elsewhere = count
                member.changed()
        return changed

    def _moved(self, seen: Sequence[bytes]) -> Iterator[tuple[int, Member]]:
        """The hosts near which a count has changed since the last look."""
        pieces: set[int] = set()
        for new, old in zip(seen, self._seen, strict=True):
            for block in _different(new, old, 0, len(new), _BLOCK):
                pieces.update(_different(new, old, block, min(block + _BLOCK, len(new)), _PIECE))
        for piece in pieces:
            first = self._low + piece // 4
            for slot in range(first, first + _PIECE // 4):
                member = self._at.get(slot)
                if member is not None:
                    yield slot, member

    def _share(self, limit: int, now: float) -> int:
        """How many of a host's `limit` places are this worker's while others' requests wait."""
        contenders = sorted((self._number, *self._rivals))
        turn = (contenders.index(self._number) + int(now / TURN_S)) % len(contenders)
        return limit // len(contenders) + (turn < limit % len(contenders))


def _different(new: bytes, old: bytes, start: int, stop: int, size: int) -> list[int]:
    """Where pieces of `size` bytes begin that are not the same."""
    return [at for at in range(start, stop, size) if new[at : at + size] != old[at : at + size]]
