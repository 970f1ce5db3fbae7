"""The process that owns one device: loads models and runs batches, one after the other, as the front says.

It ends when the front does: by the kernel's parent-death signal, and by end-of-file on the socket. What the messages
are: see crossing/.
"""

from __future__ import annotations

import gc
import pickle
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from fleet_agent.crossing import frame
from fleet_agent.crossing.area import Area, Placed
from fleet_agent.model.attempt import Attempt
from fleet_agent.model.footprint import Footprint
from fleet_agent.model.library import Library
from fleet_agent.values.payload import Payload, Rows, count_of, joined
from fleet_agent.worker.which import resolve, uuid_of
from fleet_wire.agent import ModelConfig

_READ = 1 << 18
# What is said about a batch waits so long at most for that about the next one, if that is here already: on a core that
# the front shares, the two change places once for both.
_HELD_S = 0.001


class DeviceBroken(Exception):
    """An error after which this process can't compute anything more; a new one can."""


class Worker:
    """Answers the front's messages until the socket ends."""

    def __init__(self, link: socket.socket, area: Area, device: str, memory_bound: int) -> None:
        self._link = link
        self._decoder = frame.Decoder(trusting=True)
        self._held: list[bytes | memoryview] = []
        self._held_since = 0.0
        self._area = area
        self._device_name = device
        self._memory_bound = memory_bound
        self._sending = threading.Lock()
        self._library: Library | None = None

    @property
    def loading(self) -> bool:
        """Whether a load runs beside the batches."""
        return self._library is not None and self._library.busy

    def serve(self) -> None:
        """Raises EOFError when the front is gone, DeviceBroken when this process can't go on."""
        try:
            device = resolve(self._device_name, self._memory_bound)
        except (RuntimeError, ValueError) as error:
            self._send(
                ("hello", {"device": self._device_name, "error": f"device {self._device_name}: {error}"})
            )
            raise EOFError from None
        hello = {"device": str(device), "uuid": uuid_of(device), "index": device.index or 0, "error": None}
        self._send(("hello", hello))
        # What was imported stays; what a model leaves is found without looking through all that.
        gc.freeze()
        library = Library(device, self._send)
        self._library = library
        self._work(library, Footprint(device))

    def _work(self, library: Library, footprint: Footprint) -> None:
        for message, more in self._messages():
            if message[0] not in ("run", "step"):
                footprint.forget()
            if message[0] == "run":
                self._run(library, more, *message[1:])
            elif message[0] == "step":
                self._step(library, *message[1:])
            elif message[0] == "load":
                library.load(message[1], ModelConfig.model_validate(message[2]), message[3])
            elif message[0] == "unload":
                library.unload(message[1])
            else:
                raise RuntimeError(f"the front sent {message[0]!r}, which this worker doesn't know")
            weighed = footprint.weighed()
            if weighed is not None:
                self._send(("memory", *weighed))

    def _run(
        self,
        library: Library,
        more: bool,
        batch: int,
        key: str,
        payloads: dict[str, Placed] | list[Payload],
        sizes: list[int] | None,
        wants_tokens: list[bool] | None,
        lane: int | None,
    ) -> None:
        """`more`: another message is here already."""
        started = time.perf_counter()
        if isinstance(payloads, dict):
            together: Payload = {key: self._area.get(placed) for key, placed in payloads.items()}
        else:
            together = joined(payloads)
        model = library[key]
        attempt = Attempt(model)
        rows = attempt.smooth(together) if wants_tokens is None else None
        if rows is not None and (placed := self._placed(rows, lane)) is not None:
            now = time.perf_counter()
            self._say(("ran", batch, None, placed, attempt.out_of_memory, now - started), more, now)
            return
        sizes = sizes or [1] * count_of(together)
        outcomes = attempt.outcomes(together, sizes, wants_tokens or [False] * len(sizes))
        placed = self._placed(attempt.whole, lane)
        if placed is not None:
            outcomes = [("ok", None, *outcome[2:]) for outcome in outcomes]
        took = time.perf_counter() - started
        try:
            self._send(("ran", batch, outcomes, placed, attempt.out_of_memory, took))
        except (pickle.PicklingError, RecursionError) as error:
            refused = ("refused", "internal", f"model {model.config.name}'s outputs can't be sent: {error}")
            self._send(("ran", batch, [refused] * len(sizes), None, attempt.out_of_memory, took))
        if attempt.broken is not None:
            raise DeviceBroken(attempt.broken)

    def _step(
        self,
        library: Library,
        number: int,
        key: str,
        joins: list[tuple[int, dict[str, Any]]],
        runs: tuple[int, ...],
        leaves: tuple[int, ...],
    ) -> None:
        generator = library[key].generator
        assert generator is not None, "the front steps what generates"
        stepped = generator.step(joins, runs, leaves)
        self._send(("stepped", number, stepped.outcomes, stepped.out_of_memory))
        if stepped.broken is not None:
            raise DeviceBroken(stepped.broken)

    def _placed(self, rows: Rows | None, lane: int | None) -> dict[str, Placed] | None:
        """Where the outputs of the batch are in the shared area; None: they go in the message."""
        named = {"": rows} if isinstance(rows, np.ndarray) else rows
        if not isinstance(named, dict):
            return None
        self._area.enter(lane)
        found = {name: self._area.put([array]) for name, array in named.items()}
        return (
            {name: put[0] for name, put in found.items() if put is not None} if all(found.values()) else None
        )

    def _messages(self) -> Iterator[tuple[Any, bool]]:
        """Each with whether another one has come already. Raises EOFError when the front is gone."""
        while data := self._link.recv(_READ):
            messages = self._decoder.feed(data)
            last = len(messages) - 1
            for index, message in enumerate(messages):
                yield message, index < last
        raise EOFError

    def _say(self, message: object, more: bool, now: float) -> None:
        """Send it, or hold it back for the next one."""
        if not self._held:
            self._held_since = now
        if more and now - self._held_since < _HELD_S:
            self._held += frame.encode(message)
        else:
            self._send(message)

    def _send(self, message: object) -> None:
        """And what is held back, before it. A load's thread calls this too, and has nothing to do with what is held."""
        pieces = frame.encode(message)
        if self._held and threading.current_thread() is threading.main_thread():
            pieces, self._held = [*self._held, *pieces], []
        with self._sending:
            self._link.sendall(b"".join(pieces) if len(pieces) > 1 else pieces[0])
