"""Who waits for a place in the running batch, and who is next. PURE.

Higher priority first, then in order of arrival; every tenth place goes to whoever waits longest, as in the batcher.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

# Every tenth place goes to the sequence that waits longest, whatever its priority.
_EVERY = 10


class Line:
    """Sequences by their number. `arrived` has to grow from `add` to `add`."""

    def __init__(self) -> None:
        self._classes: dict[int, OrderedDict[int, float]] = {}  # by priority, highest first
        self._priorities: dict[int, int] = {}
        self._picked = 0

    def __len__(self) -> int:
        return len(self._priorities)

    def __contains__(self, sequence: int) -> bool:
        return sequence in self._priorities

    def __iter__(self) -> Iterator[int]:
        return iter(list(self._priorities))

    def add(self, sequence: int, arrived: float, priority: int) -> None:
        """Raises ValueError for a sequence that waits already."""
        if sequence in self._priorities:
            raise ValueError(f"sequence {sequence} waits already")
        self._priorities[sequence] = priority
        if priority not in self._classes:
            self._classes[priority] = OrderedDict()
            self._classes = dict(sorted(self._classes.items(), reverse=True))
        self._classes[priority][sequence] = arrived

    def remove(self, sequence: int) -> bool:
        """False: it doesn't wait."""
        priority = self._priorities.pop(sequence, None)
        if priority is None:
            return False
        del self._classes[priority][sequence]
        return True

    def next(self) -> int:
        """Takes out whose turn it is. Raises IndexError where nobody waits."""
        waiting = [each for each in self._classes.values() if each]
        if not waiting:
            raise IndexError("nobody waits")
        self._picked += 1
        chosen = waiting[0]
        if len(waiting) > 1 and not self._picked % _EVERY:
            chosen = min(waiting, key=lambda each: next(iter(each.values())))
        sequence = next(iter(chosen))
        self.remove(sequence)
        return sequence

    def ahead_of(self, priority: int) -> int:
        """How many would be served before a new one of that priority."""
        return sum(len(each) for number, each in self._classes.items() if number >= priority)
