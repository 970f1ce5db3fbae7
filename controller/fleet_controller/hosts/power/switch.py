"""Switch: when a machine is switched, whatever the driver. The only place that gives orders.

The state is read first: a machine that is on is not switched on. Each order is given at most once a call, then only
watched; whoever calls again after a failure reads the state again first. What the control says is checked against
the machine itself: one that is said to be off and greets over SSH is not off, and is neither switched on nor believed.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.power.state import Driver, Level, Reading
from fleet_controller.spec import PowerSpec

_POLL_S = 2.0
# A machine whose power was taken away is silent at once; the proof may come a little later, through a jump host say.
SILENCE_S = 10.0


@dataclass(frozen=True)
class _Order:
    """How an order went. `given` False: the driver has no such way. `trouble` is part of a sentence, "" for none."""

    given: bool = False
    trouble: str = ""
    refused: bool = False


class Switch:
    """`greets` says whether the machine itself answers over SSH now; it is bounded in time and never raises."""

    def __init__(self, host: str, power: PowerSpec, driver: Driver, greets: Callable[[], bool]) -> None:
        self._host = host
        self._power = power
        self._driver = driver
        self._greets = greets
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Switch of {self._host} by {self._driver.who}>"

    def status(self) -> Reading:
        try:
            level = self._read()
        except HostFailure as failure:
            return Reading("unknown", failure.cause)
        return Reading("off" if level is Level.OFF else "on")

    def powered(self) -> bool:
        """A machine that is about to be on or off still has power."""
        return self._read() is not Level.OFF

    def on(self) -> bool:
        with self._lock:
            level = self._read_before_on()
            if level is Level.ON:
                return False
            if level in (Level.OFF, Level.FALLING) and self._greets():
                raise self._contradicted("so it is not switched on")
            until = time.monotonic() + self._power.boot_timeout
            if level is Level.FALLING:
                self._await(Level.OFF, until, "off", _Order())
            order = _Order()
            if level is not Level.RISING or self._driver.blind:
                order = self._give("on", self._driver.turn_on, until)
            self._await(Level.ON, until, "on", order)
            return True

    def off(self) -> bool:
        with self._lock:
            level = self._read()
            until = time.monotonic() + self._power.off_timeout
            if level is not Level.OFF:
                self._take_down(level, until)
            self._await_silence(until)
            return level is not Level.OFF

    def _take_down(self, level: Level, until: float) -> None:
        """Gracefully, for as long as `off_grace` says; then hard, where the driver can."""
        soft = _Order(given=level is Level.FALLING)
        if not soft.given and self._power.off_grace > 0:
            soft = self._give("off", self._driver.ask_off, until)
        if soft.given:
            grace_ends = min(until, time.monotonic() + self._power.off_grace)
            reached, unread = self._watch(Level.OFF, time.monotonic() if soft.refused else grace_ends)
            if reached:
                return
            if unread is not None:  # who can't see gives no second order
                self._await(Level.OFF, until, "off", soft)
                return
        hard = self._give("off", self._driver.force_off, until)
        if not hard.given and not soft.given:
            hard = self._give("off", self._driver.ask_off, until)  # off_grace is 0, but there is no other way
        refused = hard.refused if hard.given else soft.refused
        self._await(Level.OFF, until, "off", _Order(True, soft.trouble + hard.trouble, refused))

    def _read(self) -> Level:
        try:
            return self._driver.read()
        except HostFailure as failure:
            if failure.jump is not None or not failure.unreachable:
                raise
            # It is the control that does not answer; of the machine that says nothing.
            raise HostFailure(self._host, "power", failure.cause, failure.next_step) from failure

    def _read_before_on(self) -> Level | None:
        try:
            return self._read()
        except HostFailure:
            if not self._driver.blind:
                raise
            return None

    def _give(self, word: str, order: Callable[[float], object], until: float) -> _Order:
        """Give an order, once."""
        try:
            given = order(max(1.0, until - time.monotonic()))
        except HostFailure as failure:
            if failure.kind == "config":
                raise
            # It may have been carried out all the same: look, do not repeat.
            refused = failure.kind not in ("lost", "timeout")
            return _Order(True, f"; switching it {word}: {failure.cause}", refused)
        return _Order(given is not False)

    def _await(self, wanted: Level, until: float, word: str, order: _Order) -> None:
        """Raises HostFailure where it is not so in time; at once where the order was refused."""
        reached, unread = self._watch(wanted, time.monotonic() if order.refused else until)
        if reached:
            return
        limit = self._power.boot_timeout if word == "on" else self._power.off_timeout
        when = "at once" if order.refused else f"after {limit:g} s"
        if unread is not None:
            cause = f"whether it is {word} is unknown {when}: {unread.cause}{order.trouble}"
            raise HostFailure(self._host, unread.kind, cause, unread.next_step, unread.jump)
        raise HostFailure(
            self._host,
            "power",
            f"{self._driver.who} does not say that it is {word} {when}{order.trouble}",
            f"Switch it {word} by hand and see why; nothing was tried twice",
        )

    def _watch(self, wanted: Level, until: float) -> tuple[bool, HostFailure | None]:
        """Look until it is so or `until` is over, and at least once; why the last look failed, if it did.

        What can't be read now may be read later: BMCs are deaf for moments while they switch.
        """
        pause = 0.05
        while True:
            unread = None
            try:
                if self._read() is wanted:
                    return True, None
            except HostFailure as failure:
                unread = failure
            if time.monotonic() + pause >= until:
                return False, unread
            time.sleep(pause)
            pause = min(pause * 2, _POLL_S)

    def _await_silence(self, until: float) -> None:
        """A control may say off for what is still on its way down ("stopping"), and a machine greets until then."""
        until = max(until, time.monotonic() + SILENCE_S)
        while self._greets():
            if time.monotonic() > until:
                raise self._contradicted("so it is not taken as off")
            time.sleep(0.5)

    def _contradicted(self, therefore: str) -> HostFailure:
        return HostFailure(
            self._host,
            "power",
            f"{self._driver.who} says that it is off, but its SSH server answers, {therefore}: the control may belong "
            "to another machine, or say what is not true",
            "Compare power with the machine (its address, BMC, domain)",
        )
