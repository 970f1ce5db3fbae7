"""The models that a worker has in its device's memory, by the key that the front gave each of them.

The first ones are loaded before anything is computed. One that comes later is loaded and warmed in a thread of its own,
so that those which answer go on; there is one such thread at a time, and the front waits for its outcome.
"""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

import torch

from fleet_agent.model import load, source
from fleet_agent.model.faults import InputFault, ModelFault
from fleet_agent.model.loaded import LoadedModel
from fleet_agent.model.seeds import seeds
from fleet_wire.agent import ModelConfig

# How soon a load's Python code gives way to a batch (Python's own: 5 ms). Each of a batch's operations may have to wait
# so long: at 5 ms the slowest of a hundred small batches took 47 ms beside a busy load, at this 1.4.
_SWITCH_S = 0.00005


class Library:
    """`tell` sends a message to the front; it is called by the thread that loaded, too."""

    def __init__(self, device: torch.device, tell: Callable[[tuple[Any, ...]], None]) -> None:
        self._device = device
        self._tell = tell
        self._models: dict[str, LoadedModel] = {}
        self._loading: threading.Thread | None = None

    def __getitem__(self, key: str) -> LoadedModel:
        return self._models[key]

    @property
    def busy(self) -> bool:
        """Whether a load runs beside the batches."""
        return self._loading is not None and self._loading.is_alive()

    def load(self, key: str, config: ModelConfig, beside: bool) -> None:
        """("loaded", key, Traits) or ("failed", key, why) is told when it is done; `beside`: that is later."""
        if not beside:
            self._load(key, config)
            return
        usual = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)

        def run() -> None:
            if self._device.type == "cuda":
                torch.cuda.set_device(self._device)  # it belongs to the thread
            try:
                self._load(key, config)
            except BaseException as error:  # A thread's end is nobody's to see; the front has to hear of it.
                traceback.print_exc(file=sys.stderr)
                said = f"{type(error).__name__}: {error}"
                self._tell(("failed", key, f"model {config.name}: loading it ended with {said}"))
            finally:
                sys.setswitchinterval(usual)

        self._loading = threading.Thread(target=run, name="load", daemon=True)
        self._loading.start()

    def unload(self, key: str) -> None:
        """Forget the model and give its memory back; ("unloaded", key) is told."""
        model = self._models.pop(key, None)
        if model is not None:
            source.forget(model.instance)
            del model
            self._give_back()
        self._tell(("unloaded", key))

    def _load(self, key: str, config: ModelConfig) -> None:
        said = self._loaded(key, config)
        if said is not None:
            self._give_back()
            self._tell(("failed", key, said))

    def _loaded(self, key: str, config: ModelConfig) -> str | None:
        """None: it is loaded and warm. Otherwise why not, and nothing of it is kept."""
        started = time.perf_counter()
        before = held_bytes(self._device)
        try:
            model = load(config, self._device)
        except ModelFault as error:
            if error.__cause__ is not None:
                traceback.print_exception(error.__cause__, file=sys.stderr)
            return str(error)
        try:
            warm_s = model.warm_up()
        except Exception as error:  # The user's code may raise anything while it warms up.
            said = str(error)
            if not isinstance(error, InputFault | ModelFault):
                traceback.print_exc(file=sys.stderr)
                said = f"{type(error).__name__}: {error}"
            source.forget(model.instance)
            return f"model {config.name}: warm-up failed: {said}"
        self._models[key] = model
        held = config.device_memory_bytes if before is None else (held_bytes(self._device) or 0) - before
        traits = {
            "inputs": model.inputs,
            "outputs": model.outputs,
            "embeddings": model.embeddings,
            "tensors": not callable(getattr(model.instance, "preprocess", None)),
            "memory_bytes": held,
            "predicts": model.predicts,
            "length_buckets": model.length_buckets,
            "max_tokens": None if model.generator is None else model.generator.max_tokens,
            "counts_prompt": model.generator is not None and model.generator.counts_prompt,
            # Beside batches of another version the times would be those of two.
            "seeds": [] if threading.current_thread() is self._loading else seeds(model, warm_s),
            "load_s": time.perf_counter() - started,
            "out_of_memory": model.out_of_memory,
        }
        self._tell(("loaded", key, traits))
        return None

    def _give_back(self) -> None:
        """What no longer has a name goes back to the device and to the system."""
        gc.collect()
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's; others give back by themselves
        if trim is not None:
            trim(0)


def held_bytes(device: torch.device) -> int | None:
    """What torch has taken of a GPU's memory for this process; None: no GPU."""
    return int(torch.cuda.memory_reserved(device)) if device.type == "cuda" else None
