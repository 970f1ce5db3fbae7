"""Switching a machine on and off, and seeing that it is so.

The state is asked for first: a machine that is on is not switched on. Each call gives its command at most
once, then only watches; whoever calls again after a failure asks for the state again first.
"""

from __future__ import annotations

import re
import threading
import time
from typing import Protocol

from fleet_controller.hosts.command import Command
from fleet_controller.hosts.failure import HostFailure, brief, printable
from fleet_controller.hosts.transport import Result, Transport
from fleet_controller.spec import HostSpec, PowerSpec

_POLL_S = 2.0


class Power(Protocol):
    """`on` and `off` return False when there was nothing to do. All methods raise HostFailure."""

    def powered(self) -> bool | None: ...

    def on(self) -> bool: ...

    def off(self) -> bool: ...


class NoPower:
    """A machine whose power nobody controls: it is taken as on."""

    def __init__(self, host: str) -> None:
        self._host = host

    def powered(self) -> bool | None:
        return None

    def on(self) -> bool:
        return False

    def off(self) -> bool:
        raise HostFailure(
            self._host,
            "power",
            "it cannot be switched off: it has no power control",
            "Set power.driver, with the commands that switch it",
        )


class CommandPower:
    """Power by commands, run over `transport`. In them {name} and {address} stand for the host's own."""

    def __init__(self, host: HostSpec, transport: Transport) -> None:
        self._host = host
        self._power: PowerSpec = host.power
        self._transport = transport
        self._lock = threading.Lock()

    def powered(self) -> bool:
        result = self._run("status", self._power.status)
        text = printable(result.stdout)
        if result.status != 0:
            # Not knowing is not "off": a machine taken for off by mistake would be switched on twice.
            said = brief(result.stderr) or brief(result.stdout) or "nothing"
            raise HostFailure(
                self._host.name,
                "power",
                f"whether it is on is unknown: power.status ended with status {result.status}{self._where()}"
                f" and said: {said}",
                "Make power.status end with 0 and print the state, whether the machine is on or off",
            )
        return re.search(self._power.status_on, text) is not None

    def on(self) -> bool:
        return self._switch("on", self._power.on, True, self._power.boot_timeout)

    def off(self) -> bool:
        return self._switch("off", self._power.off, False, self._power.off_timeout)

    def _switch(self, word: str, argv: tuple[str, ...], wanted: bool, timeout: float) -> bool:
        with self._lock:
            until = time.monotonic() + timeout
            if self.powered() == wanted:
                return False
            refusal = ""
            try:
                result = self._run(word, argv, timeout)
                if result.status != 0:
                    refusal = f"; power.{word} ended with status {result.status} and said: "
                    refusal += brief(result.stderr) or brief(result.stdout) or "nothing"
            except HostFailure as failure:
                if failure.kind not in ("lost", "timeout"):
                    raise
                # It may have been carried out all the same: look, do not repeat.
                refusal = f"; power.{word}: {failure.cause}"
            pause = 0.05
            while self.powered() != wanted:
                if refusal and "ended with status" in refusal:
                    raise self._unmoved(word, "at once", refusal)
                if time.monotonic() + pause >= until:
                    raise self._unmoved(word, f"after {timeout:g} s", refusal)
                time.sleep(pause)
                pause = min(pause * 2, _POLL_S)
            return True

    def _unmoved(self, word: str, when: str, refusal: str) -> HostFailure:
        return HostFailure(
            self._host.name,
            "power",
            f"power.status does not say that it is {word} {when}{self._where()}{refusal}",
            f"Run the command power.{word} by hand and see why; nothing was tried twice",
        )

    def _run(self, word: str, argv: tuple[str, ...], timeout: float | None = None) -> Result:
        if not argv:
            raise HostFailure(
                self._host.name,
                "config",
                f"power.{word} is not set",
                "Give power.on, power.off and power.status a command each",
            )
        filled = tuple(
            word.replace("{name}", self._host.name).replace("{address}", self._host.address) for word in argv
        )
        try:
            return self._transport.run(Command(filled, timeout_s=timeout))
        except HostFailure as failure:
            if self._power.via is None:
                raise
            cause = f"its power control does not work: {self._power.via}: {failure.cause}"
            raise HostFailure(
                self._host.name, failure.kind, cause, failure.next_step, self._power.via
            ) from failure

    def _where(self) -> str:
        return f" (run on {self._power.via})" if self._power.via else ""
