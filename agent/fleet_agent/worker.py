"""The process that owns one device: loads models and runs batches, one after the other, as the front says.

Started by the front as `python -m fleet_agent.worker FD ...`; FD is its end of a socket pair (see frame.py). It ends
when the front does: by the kernel's parent-death signal, and by end-of-file on the socket.

front -> worker: ("load", ModelConfig as dict) ("run", batch, model, [payload], [wants tokens])
worker -> front: ("hello", Hello) ("loaded", model, Traits) ("failed", model, why) ("ran", batch, [outcome], seconds)
outcome: ("ok", rows, finite, tokens) or ("refused", code, message)
"""

from __future__ import annotations

import ctypes
import os
import pickle
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

import torch

from fleet_agent import frame
from fleet_agent.model import InputFault, LoadedModel, ModelFault, load
from fleet_agent.payload import Payload, count_of, joined, split
from fleet_wire.agent import ModelConfig

_PR_SET_PDEATHSIG = 1
_HEAD = struct.Struct("<IQ")


def main(argv: Sequence[str]) -> int:
    """`FD PARENT DEVICE THREADS MEMORY`: socket, the front's pid, device, torch threads (0: its own), byte bound."""
    fd, parent, device, threads, memory = int(argv[0]), int(argv[1]), argv[2], int(argv[3]), int(argv[4])
    _die_with(parent)
    # The controller signals the whole process group; when to stop is the front's to say. Handlers rather than
    # SIG_IGN, since the latter would be inherited by whatever a model starts.
    signal.signal(signal.SIGTERM, _heard)
    signal.signal(signal.SIGINT, _heard)
    if threads:
        torch.set_num_threads(threads)
    with socket.socket(fileno=fd) as link:
        try:
            Worker(link, device, memory).serve()
        except (EOFError, ConnectionError):
            return 0
    return 0


class Worker:
    """Answers the front's messages until the socket ends."""

    def __init__(self, link: socket.socket, device: str, memory_bound: int) -> None:
        self._link = link
        self._device_name = device
        self._memory_bound = memory_bound
        self._models: dict[str, LoadedModel] = {}

    def serve(self) -> None:
        """Raises EOFError when the front is gone."""
        try:
            device = resolve(self._device_name, self._memory_bound)
        except (RuntimeError, ValueError) as error:
            self._send(
                ("hello", {"device": self._device_name, "error": f"device {self._device_name}: {error}"})
            )
            raise EOFError from None
        self._send(("hello", {"device": str(device), "uuid": uuid_of(device), "error": None}))
        while True:
            message = self._receive()
            if message[0] == "run":
                self._run(*message[1:])
            elif message[0] == "load":
                self._load(ModelConfig.model_validate(message[1]), device)
            else:
                raise RuntimeError(f"the front sent {message[0]!r}, which this worker doesn't know")

    def _load(self, config: ModelConfig, device: torch.device) -> None:
        started = time.perf_counter()
        before = _allocated(device)
        try:
            model = load(config, device)
        except ModelFault as error:
            if error.__cause__ is not None:
                traceback.print_exception(error.__cause__, file=sys.stderr)
            self._send(("failed", config.name, str(error)))
            return
        try:
            model.warm_up()
        except Exception as error:  # The user's code may raise anything while it warms up.
            said = str(error)
            if not isinstance(error, InputFault | ModelFault):
                traceback.print_exc(file=sys.stderr)
                said = f"{type(error).__name__}: {error}"
            self._send(("failed", config.name, f"model {config.name}: warm-up failed: {said}"))
            return
        self._models[config.name] = model
        held = config.device_memory_bytes if before is None else (_allocated(device) or 0) - before
        traits = {
            "inputs": model.inputs,
            "outputs": model.outputs,
            "embeddings": model.embeddings,
            "memory_bytes": held,
            "load_s": time.perf_counter() - started,
        }
        self._send(("loaded", config.name, traits))

    def _run(self, batch: int, name: str, payloads: list[Payload], wants_tokens: list[bool]) -> None:
        started = time.perf_counter()
        outcomes = self._outcomes(self._models[name], payloads, wants_tokens)
        try:
            self._send(("ran", batch, outcomes, time.perf_counter() - started))
        except (pickle.PicklingError, RecursionError) as error:
            refused = ("refused", "internal", f"model {name}'s outputs can't be sent: {error}")
            self._send(("ran", batch, [refused] * len(payloads), time.perf_counter() - started))

    def _outcomes(
        self, model: LoadedModel, payloads: list[Payload], wants_tokens: list[bool]
    ) -> list[tuple[Any, ...]]:
        """All parts together; if that fails, each alone, so that a bad one takes nobody with it."""
        try:
            result = model.run(joined(payloads))
            pieces = split(result.rows, [count_of(payload) for payload in payloads])
            return [
                ("ok", rows, result.finite, model.tokens(payload) if wants else None)
                for rows, payload, wants in zip(pieces, payloads, wants_tokens, strict=True)
            ]
        except Exception as error:  # The user's code may raise anything; the request gets it, not the worker.
            if len(payloads) == 1:
                return [_refused(model.config.name, error)]
        return [
            outcome
            for payload, wants in zip(payloads, wants_tokens, strict=True)
            for outcome in self._outcomes(model, [payload], [wants])
        ]

    def _send(self, message: object) -> None:
        for piece in frame.encode(message):
            self._link.sendall(piece)

    def _receive(self) -> Any:
        """The next message; its arrays are writable, as torch wants them."""
        count, body = _HEAD.unpack(self._exactly(_HEAD.size))
        lengths = struct.unpack(f"<{count}Q", self._exactly(8 * count)) if count else ()
        pickled = self._exactly(body)
        return pickle.loads(pickled, buffers=[self._exactly(length) for length in lengths])

    def _exactly(self, size: int) -> bytearray:
        data = bytearray(size)
        view = memoryview(data)
        while view:
            got = self._link.recv_into(view)
            if not got:
                raise EOFError
            view = view[got:]
        return data


def _refused(name: str, error: Exception) -> tuple[str, str, str]:
    if isinstance(error, InputFault):
        return ("refused", "bad_request", str(error))
    if isinstance(error, ModelFault):
        return ("refused", "internal", str(error))
    traceback.print_exception(error, file=sys.stderr)
    return ("refused", "internal", f"model {name} raised {type(error).__name__}: {error}")


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
    """NVML's name for a CUDA device, None for others."""
    return f"GPU-{torch.cuda.get_device_properties(device).uuid}" if device.type == "cuda" else None


def _allocated(device: torch.device) -> int | None:
    return int(torch.cuda.memory_reserved(device)) if device.type == "cuda" else None


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
