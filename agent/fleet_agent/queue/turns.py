"""Which model may use a device next, where several share it. PURE.

Start-time fair queueing over seconds on the device (Goyal, Vin, Cheng; SIGCOMM 1996): each model has spent so much,
whoever spent least is asked first, and who had nothing to compute for a while comes back level with the others instead
of with a claim on all that time. So a model with long batches gets as much of the device as one with short ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

M = TypeVar("M", bound=Hashable)


class Turns(Generic[M]):
    """The models that share the devices, by what they have used."""

    def __init__(self, models: Iterable[M]) -> None:
        self._spent: dict[M, float] = dict.fromkeys(models, 0.0)
        self._level = 0.0

    def join(self, model: M) -> None:
        """It has used nothing, and is level with the others."""
        self._spent.setdefault(model, 0.0)

    def leave(self, model: M) -> None:
        self._spent.pop(model, None)

    def order(self) -> list[M]:
        """Everybody, who is to be asked first at the beginning."""
        if len(self._spent) == 1:
            return list(self._spent)
        return sorted(self._spent, key=lambda model: max(self._spent[model], self._level))

    def used(self, model: M, seconds: float) -> None:
        """A batch of that model kept a device busy for `seconds`. One that has left meanwhile isn't counted."""
        if model not in self._spent:
            return
        self._level = max(self._level, self._spent[model])
        # Last in the order of names too, so that equals take turns.
        self._spent[model] = max(self._spent.pop(model), self._level) + seconds
