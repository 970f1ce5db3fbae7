"""What is known of a machine's power, and what may be asked of whoever controls it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, Protocol


class Level(StrEnum):
    """What a driver reads. RISING and FALLING: it was told to, and is not there yet."""

    ON = "on"
    OFF = "off"
    RISING = "rising"
    FALLING = "falling"


@dataclass(frozen=True)
class Reading:
    """The state for people and programs; `reason` says why it is unknown, "" where it is known."""

    state: Literal["on", "off", "unknown", "uncontrolled"]
    reason: str = ""


class Driver(Protocol):
    """One way to switch one machine. Each method is bounded in time, acts at most once, and raises HostFailure.

    Kinds "lost" and "timeout" leave open whether an order was carried out; after the others it was refused.
    `who` names the control in messages. `blind`: it can't tell off from cut off, and switching on a machine that is
    on does no harm: so it may be done without knowing.
    """

    who: str
    blind: bool

    def read(self) -> Level: ...

    def turn_on(self, within_s: float) -> None: ...

    def ask_off(self, within_s: float) -> bool:
        """Have the machine shut itself down; False where there is no such way, and nothing was done."""
        ...

    def force_off(self, within_s: float) -> bool:
        """Take its power away; False where there is no such way, and nothing was done."""
        ...


class Power(Protocol):
    """`on` and `off` return False when there was nothing to do. All but `status` raise HostFailure."""

    def status(self) -> Reading: ...

    def powered(self) -> bool | None:
        """None: nobody controls it. Not knowing is a HostFailure."""
        ...

    def on(self) -> bool: ...

    def off(self) -> bool: ...
