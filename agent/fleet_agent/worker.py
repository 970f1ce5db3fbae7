"""The process that owns one device: loads models and runs batches, one after the other, as the front says.

Started by the front as `python -m fleet_agent.worker FD ...`; FD is its end of a socket pair (see frame.py). It ends
when the front does: by the kernel's parent-death signal, and by end-of-file on the socket.

front -> worker: ("load", key, ModelConfig as dict, beside) ("unload", key)
                 ("run", batch, key, {input: Placed} or [payload], sizes, wants tokens)
                 ("step", step, key, [(sequence, request)] that begin, sequences to step, sequences to forget)
worker -> front: ("hello", Hello) ("loaded", key, Traits) ("failed", key, why) ("unloaded", key)
                 ("memory", resident bytes, bytes reserved on the GPU or None)
                 ("ran", batch, [outcome], {output: Placed} or None, smallest batch that ran out of memory or None)
                 ("stepped", step, {sequence: outcome as in model/generator.py}, as above of sequences)
key: the front's name for one version of a model, loaded once. beside: while batches are computed (see library.py).
outcome: ("ok", rows, finite, tokens) or ("refused", code, message); rows is None where they lie in the shared area,
whose one output without a name is called "". See area.py.
"""

from __future__ import annotations

import ctypes
import gc
import os
import pickle
import signal
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from io import BufferedReader
from typing import Any

import numpy as np
import torch

from fleet_agent import frame
from fleet_agent.area import Area, Placed
from fleet_agent.model.attempt import Attempt
from fleet_agent.model.footprint import Footprint
from fleet_agent.model.library import Library
from fleet_agent.payload import Payload, Rows, joined
from fleet_wire.agent import ModelConfig

_PR_SET_PDEATHSIG = 1
_HEAD = struct.Struct("<IQ")
_READ = 1 << 16


def main(argv: Sequence[str]) -> int:
    """`FD AREA PARENT DEVICE THREADS MEMORY`: socket, shared area, the front's pid, device, torch threads (0: its own),
    byte bound."""
    fd, shared, parent, device = int(argv[0]), int(argv[1]), int(argv[2]), argv[3]
    threads, memory = int(argv[4]), int(argv[5])
    _die_with(parent)
    area = Area(shared, front=False)
    os.close(shared)
    # The controller signals the whole process group; when to stop is the front's to say. Handlers rather than
    # SIG_IGN, since the latter would be inherited by whatever a model starts.
    signal.signal(signal.SIGTERM, _heard)
    signal.signal(signal.SIGINT, _heard)
    if threads:
        torch.set_num_threads(threads)
    with socket.socket(fileno=fd) as link:
        worker = Worker(link, area, device, memory)
        status = 0
        try:
            worker.serve()
        except (EOFError, ConnectionError):
            pass
        except DeviceBroken as error:
            print(f"the device can't be used any more: {error}", file=sys.stderr)  # noqa: T201 - the front's log
            status = 1
        if worker.loading:
            os._exit(
                status
            )  # a thread can't be ended, and must not compute while the interpreter is taken down
    return status


class DeviceBroken(Exception):
    """An error after which this process can't compute anything more; a new one can."""


class Worker:
    """Answers the front's messages until the socket ends."""

    def __init__(self, link: socket.socket, area: Area, device: str, memory_bound: int) -> None:
        self._link = link
        # Buffered: a message in one call of the system instead of three.
        self._reader = BufferedReader(socket.SocketIO(link, "r"), _READ)
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
        while True:
            message = self._receive()
            if message[0] not in ("run", "step"):
                footprint.forget()
            if message[0] == "run":
                self._run(library, *message[1:])
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
        batch: int,
        key: str,
        payloads: dict[str, Placed] | list[Payload],
        sizes: list[int],
        wants_tokens: list[bool],
    ) -> None:
        if isinstance(payloads, dict):
            together: Payload = {key: self._area.get(placed) for key, placed in payloads.items()}
        else:
            together = joined(payloads)
        model = library[key]
        attempt = Attempt(model)
        rows = None if any(wants_tokens) else attempt.smooth(together)
        if rows is not None and (placed := self._placed(rows)) is not None:
            self._send(("ran", batch, None, placed, attempt.out_of_memory))
            return
        outcomes = attempt.outcomes(together, sizes, wants_tokens)
        placed = self._placed(attempt.whole)
        if placed is not None:
            outcomes = [("ok", None, *outcome[2:]) for outcome in outcomes]
        try:
            self._send(("ran", batch, outcomes, placed, attempt.out_of_memory))
        except (pickle.PicklingError, RecursionError) as error:
            refused = ("refused", "internal", f"model {model.config.name}'s outputs can't be sent: {error}")
            self._send(("ran", batch, [refused] * len(sizes), None, attempt.out_of_memory))
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

    def _placed(self, rows: Rows | None) -> dict[str, Placed] | None:
        """Where the outputs of the batch are in the shared area; None: they go in the message."""
        named = {"": rows} if isinstance(rows, np.ndarray) else rows
        if not isinstance(named, dict):
            return None
        self._area.clear()
        found = {name: self._area.put([array]) for name, array in named.items()}
        return (
            {name: put[0] for name, put in found.items() if put is not None} if all(found.values()) else None
        )

    def _send(self, message: object) -> None:
        pieces = frame.encode(message)
        with self._sending:
            for piece in pieces:
                self._link.sendall(piece)

    def _receive(self) -> Any:
        """The next message; its arrays are writable, as torch wants them."""
        count, body = _HEAD.unpack(self._exactly(_HEAD.size))
        lengths = struct.unpack(f"<{count}Q", self._exactly(8 * count)) if count else ()
        pickled = self._exactly(body)
        return pickle.loads(pickled, buffers=[self._writable(length) for length in lengths])

    def _exactly(self, size: int) -> bytes:
        data = self._reader.read(size)
        if len(data) < size:
            raise EOFError
        return data

    def _writable(self, size: int) -> bytearray:
        data = bytearray(size)
        if self._reader.readinto(data) < size:
            raise EOFError
        return data


def resolve(name: str, memory_bound: int) -> torch.device:
    """The torch device behind "auto", "cpu", "cuda" or "cuda:N"; a bound in bytes (0: none) holds on a GPU.

    Raises ValueError or RuntimeError where there is no such device.
    """
    if name == "auto":
        name = "cuda:0" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise ValueError("torch finds no usable CUDA device on this machine; use cpu or auto")
        index = device.index or 0
        if index >= torch.cuda.device_count():
            raise ValueError(f"torch finds {torch.cuda.device_count()} CUDA devices, counted from 0")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
        total = torch.cuda.get_device_properties(device).total_memory
        if 0 < memory_bound < total:
            torch.cuda.set_per_process_memory_fraction(memory_bound / total, device)
    elif device.type != "cpu":
        raise ValueError("only cpu and cuda devices are served")
    return device


def uuid_of(device: torch.device) -> str | None:
    """CUDA's name for one of its devices, without NVML's prefix; None for others."""
    return str(torch.cuda.get_device_properties(device).uuid) if device.type == "cuda" else None


def _heard(signum: int, stack: object) -> None:
    pass


def _die_with(parent: int) -> None:
    """Linux kills this process when the front dies. Source: prctl(2); the check closes the race it describes."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the front is gone already")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
