"""From one process to the next with no request lost: an upgrade, or a configuration that can't change in place.

The old process starts its own command line anew and leaves its listening sockets open to it, with one end of a channel.
The new one takes the state over that channel, serves, and says so; only then does the old one stop to accept. What
waits at the sockets meanwhile is served by either. A new process that does not come up changes nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Mapping

from pydantic import BaseModel

from fleet_balancer.process.channel import Caller, ChannelClosed, Message, Respondent
from fleet_balancer.process.listener import Listener, adopt
from fleet_balancer.process.statefile import SavedState
from fleet_balancer.telemetry.merge import last_words
from fleet_wire.balancer import BalancerStatus

log = logging.getLogger(__name__)

VARIABLE = "FLEET_BALANCER_HANDOVER"
# How long a new process may take until it serves.
START_S = 30.0
# For one that gives up by itself to end.
END_S = 2.0


class _Given(BaseModel):
    """A listening address: how it was written, and its sockets' descriptors."""

    text: str
    sockets: list[int]


class _Handed(BaseModel):
    """What the environment variable says."""

    channel: int
    listeners: dict[str, _Given]


class Inheritance(BaseModel):
    """What the old process knows. `started_at`: since when it counts."""

    state: SavedState
    started_at: float


class HandoverFailed(Exception):
    """The new process did not come up; str() says why. The old one serves on."""


class Predecessor:
    """The old process, as the new one sees it: who gives, and then what it still does and has done."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self._known: BalancerStatus | None = None

    async def take(self) -> Inheritance:
        """Raises ChannelClosed, Refusal."""
        return Inheritance.model_validate(await self._caller.ask("take"))

    async def serving(self) -> None:
        """Tell that this process serves. Raises ChannelClosed where nobody waits for that any more."""
        await self._caller.ask("serving")

    @property
    def ended(self) -> asyncio.Event:
        return self._caller.closed

    async def status(self) -> BalancerStatus | None:
        """Its counts, and those of the processes before it; after its end what it counted last."""
        if not self._caller.closed.is_set():
            try:
                self._known = BalancerStatus.model_validate(await self._caller.ask("status", patience_s=2.0))
            except ChannelClosed:
                pass  # it ended just now, or hangs: what it said last counts
        if self._caller.closed.is_set():
            if self._caller.farewell is not None:
                self._known = BalancerStatus.model_validate(self._caller.farewell)
                self._caller.farewell = None
            if self._known is not None:
                self._known = last_words(self._known)
        return self._known

    async def in_flight(self) -> dict[str, int]:
        """Requests that it still has on the hosts, by host_key()."""
        try:
            return dict(await self._caller.ask("in_flight", patience_s=1.0))
        except ChannelClosed:
            return {}


class Heir:
    """What this process was started with, where another one hands over to it."""

    def __init__(self, handed: _Handed) -> None:
        self._channel = socket.socket(fileno=handed.channel)
        self._listeners = {name: adopt(g.text, g.sockets) for name, g in handed.listeners.items()}

    @classmethod
    def from_environment(cls) -> Heir | None:
        text = os.environ.pop(VARIABLE, None)
        return None if text is None else cls(_Handed.model_validate_json(text))

    def listener(self, name: str, text: str) -> Listener | None:
        """The sockets of the old process, where they are on the address that this one wants too."""
        listener = self._listeners.get(name)
        return self._listeners.pop(name) if listener is not None and listener.text == text else None

    async def predecessor(self) -> Predecessor:
        """To be called once everything wanted was taken: the other sockets are closed here."""
        for listener in self._listeners.values():
            listener.close()
        return Predecessor(await Caller.over(self._channel))


class Successor:
    """The new process, as the old one sees it. start() returns once it serves."""

    def __init__(
        self,
        listeners: Mapping[str, Listener],
        inheritance: Callable[[], Awaitable[Inheritance]],
        status: Callable[[], Awaitable[BalancerStatus]],
        in_flight: Callable[[], Awaitable[dict[str, int]]],
    ) -> None:
        self.pid = 0
        self._listeners = listeners
        self._inheritance = inheritance
        self._status = status
        self._in_flight = in_flight
        self._serves = asyncio.Event()
        self._child: subprocess.Popen[bytes] | None = None
        self._respondent: Respondent | None = None
        self._answering: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Raises HandoverFailed."""
        ours, its = socket.socketpair()
        with its:
            child = self._child = self._spawn(its)
        self.pid = child.pid
        self._respondent = await Respondent.over(ours)
        loop = asyncio.get_running_loop()
        self._answering = loop.create_task(self._respondent.serve(self._answer))
        serves = loop.create_task(self._serves.wait())
        await asyncio.wait((self._answering, serves), timeout=START_S, return_when=asyncio.FIRST_COMPLETED)
        serves.cancel()
        if self._serves.is_set():
            child.returncode = 0  # it lives on without this object, which would warn of that
            return
        hung = child.poll() is None and not self._answering.done()
        if not hung:
            # It has hung up, and is about to end: its last lines, and its exit code, are worth a moment.
            with contextlib.suppress(subprocess.TimeoutExpired):
                await asyncio.to_thread(child.wait, END_S)
        self._answering.cancel()
        self._respondent.close()
        child.kill()
        child.wait()
        why = f"did not serve within {START_S:.0f} s" if hung else f"ended with status {child.returncode}"
        raise HandoverFailed(f"the new process {why}; its last lines say why, and this one serves on")

    def abort(self) -> None:
        """This process was told to end: then so does the new one, unless it serves already."""
        if self._child is not None and not self._serves.is_set():
            self._child.kill()

    async def farewell(self, status: BalancerStatus) -> None:
        """This process ends: what it counted in all."""
        if self._respondent is not None:
            await self._respondent.farewell(status.model_dump(mode="json", by_alias=True))

    def _spawn(self, its: socket.socket) -> subprocess.Popen[bytes]:
        given = {name: _Given(text=x.text, sockets=x.descriptors()) for name, x in self._listeners.items()}
        handed = _Handed(channel=its.fileno(), listeners=given)
        descriptors = [handed.channel, *(d for g in given.values() for d in g.sockets)]
        return subprocess.Popen(
            [sys.executable, *sys.orig_argv[1:]],
            pass_fds=descriptors,
            env={**os.environ, VARIABLE: handed.model_dump_json()},
        )

    async def _answer(self, verb: str, _body: Message) -> Message:
        if verb == "take":
            message: Message = json.loads((await self._inheritance()).model_dump_json())
            return message
        if verb == "serving":
            self._serves.set()
            return {}
        if verb == "status":
            return (await self._status()).model_dump(mode="json", by_alias=True)
        if verb == "in_flight":
            return dict(await self._in_flight())
        raise AssertionError(f"no such question: {verb}")
