"""Which model may use a device next, where several share it. PURE.

Start-time fair queueing over seconds on the device (Goyal, Vin, Cheng; SIGCOMM 1996): each model has spent so much,
whoever spent least is asked first, and who had nothing to compute for a while comes back level with the others instead
of with a claim on all that time. So a model with long batches gets as much of the device as one with short ones.
"""

from __future__ import annotations

from collections.abc import Iterable


class Turns:
    """The models that share the devices, by what they have used."""

    def __init__(self, names: Iterable[str]) -> None:
        self._spent = dict.fromkeys(names, 0.0)
        self._level = 0.0

    def order(self) -> list[str]:
        """Everybody, who is to be asked first at the beginning."""
        if len(self._spent) == 1:
            return list(self._spent)
        return sorted(self._spent, key=lambda name: max(self._spent[name], self._level))

    def used(self, name: str, seconds: float) -> None:
        """A batch of that model kept a device busy for `seconds`."""
        self._level = max(self._level, self._spent[name])
        # Last in the order of names too, so that equals take turns.
        self._spent[name] = max(self._spent.pop(name), self._level) + seconds
