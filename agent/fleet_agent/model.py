"""Loads the user's model class and runs batches through it. Runs in the worker only.

The class's interface is documented in docs/models.md. This file decides how a folder becomes an importable package,
what the default `preprocess` and `postprocess` do, what an input error is (400) and what the model's own (500).
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import math
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from fleet_agent.payload import Payload, Rows, count_of, instances_of
from fleet_agent.tensors import DTYPES, Array, TensorMetadata, checked_metadata
from fleet_wire.agent import ModelConfig

# What a model raises to say that the input is at fault.
INPUT_ERRORS = (ValueError, TypeError, KeyError)


class ModelFault(Exception):
    """The model can't be loaded or doesn't keep to its interface; str() says which model, what and where."""


class InputFault(Exception):
    """The client sent something that the model doesn't take; str() names the instance where it is known."""


@dataclass(frozen=True, slots=True)
class Result:
    """`rows`: one per instance. `finite`: none of its numbers is NaN or infinite."""

    rows: Rows
    finite: bool


class LoadedModel:
    """A model of the user's, on its device."""

    def __init__(self, config: ModelConfig, instance: Any, device: torch.device) -> None:
        self.config = config
        self.instance = instance
        self.device = device
        where = f"model {config.name}: {config.entrypoint}"
        try:
            self.inputs = _metadata(instance, "inputs", where)
            self.outputs = _metadata(instance, "outputs", where)
        except ValueError as error:
            raise ModelFault(str(error)) from None
        self.embeddings = bool(getattr(instance, "embeddings", False))

    def run(self, payload: Payload) -> Result:
        """One batch. Raises InputFault, ModelFault, or whatever the model's `forward` raises."""
        count = count_of(payload)
        with torch.inference_mode():
            batch = self._preprocess(payload)
            try:
                outputs = self.instance.forward(batch)
            except ValueError as error:
                raise InputFault(str(error)) from error
            rows = self._postprocess(outputs)
        given = count_of(rows)
        if given != count:
            raise ModelFault(f"model {self.config.name} returned {given} outputs for {count} instances")
        return Result(rows, _is_finite(rows))

    def tokens(self, payload: Payload) -> int | None:
        """How many tokens the instances are, by the model's own `count_tokens`; None where it has none."""
        counter = getattr(self.instance, "count_tokens", None)
        return None if counter is None else int(sum(counter(instances_of(payload))))

    def warm_up(self) -> int:
        """Run what the model's `warmup` gives, alone and as a full batch; answers how many instances that were."""
        maker = getattr(self.instance, "warmup", None)
        if maker is None:
            return 0
        instances = list(maker())
        if not instances:
            return 0
        size = self.config.max_batch_size
        full = (instances * math.ceil(size / len(instances)))[:size]
        self.run(instances[:1])
        self.run(full)
        return 1 + len(full)

    def memory_bytes(self) -> int | None:
        """What the declaration says; the caller measures where there is a device to ask."""
        return self.config.device_memory_bytes

    def _preprocess(self, payload: Payload) -> Any:
        own = getattr(self.instance, "preprocess", None)
        if own is None:
            return self._as_tensors(payload)
        instances = instances_of(payload)
        try:
            return own(instances)
        except INPUT_ERRORS as error:
            raise self._blamed(instances, own, error) from error

    def _blamed(self, instances: list[Any], own: Any, error: Exception) -> InputFault:
        """The instance that `preprocess` doesn't take alone either; without one, the error as it is."""
        for index, instance in enumerate(instances):
            try:
                own([instance])
            except INPUT_ERRORS as alone:
                return InputFault(f"instance {index}: {_said(alone)}")
        return InputFault(_said(error))

    def _as_tensors(self, payload: Payload) -> torch.Tensor | dict[str, torch.Tensor]:
        """The default `preprocess`: numbers as one tensor per input on the device."""
        if isinstance(payload, dict):
            tensors = {name: self._tensor(self._numbers(name, array)) for name, array in payload.items()}
            return next(iter(tensors.values())) if len(tensors) == 1 else tensors
        if isinstance(payload[0], dict):
            names = list(payload[0])
            for index, instance in enumerate(payload):
                if not isinstance(instance, dict) or set(instance) != set(names):
                    raise InputFault(f"instance {index}: expected an object with the keys {', '.join(names)}")
            return {n: self._tensor(self._from_json(n, [i[n] for i in payload])) for n in names}
        return self._tensor(self._from_json(None, payload))

    def _tensor(self, array: Any) -> torch.Tensor:
        if not array.flags.writeable:
            array = array.copy()
        return torch.from_numpy(array).to(self.device)

    def _declared(self, name: str | None) -> TensorMetadata | None:
        if not self.inputs:
            return None
        if name is None:
            return self.inputs[0]
        return next((tensor for tensor in self.inputs if tensor["name"] == name), None)

    def _numbers(self, name: str, array: Any) -> Any:
        if array.dtype == object:
            raise InputFault(f"input {name!r}: the model takes numbers, not BYTES")
        return array

    def _from_json(self, name: str | None, values: Sequence[Any]) -> Any:
        declared = self._declared(name)
        dtype = (
            np.dtype(np.float32)
            if declared is None
            else DTYPES.get(declared["datatype"], np.dtype(np.float32))
        )
        shape = None if declared is None else declared["shape"][1:]
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(values, dtype=dtype)
            ok = (shape is None or _fits(array.shape[1:], shape)) and bool(np.isfinite(array).all())
        except (ValueError, TypeError, OverflowError):
            ok = False
        if not ok:
            raise InputFault(_first_misfit(values, dtype, shape))
        return array

    def _postprocess(self, outputs: Any) -> Rows:
        own = getattr(self.instance, "postprocess", None)
        rows = outputs if own is None else own(outputs)
        name = f"model {self.config.name}"
        if isinstance(rows, dict):
            try:
                named = {str(key): _array(value) for key, value in rows.items()}
                count_of(named)
            except ValueError as error:
                raise ModelFault(f"{name}: outputs are {error}") from None
            return named
        if isinstance(rows, torch.Tensor | np.ndarray):
            array: Array = _array(rows)
            if not array.ndim:
                raise ModelFault(
                    f"{name} returned a single number; the first dimension is one row per instance"
                )
            return array
        if isinstance(rows, list | tuple):
            return [_plain(row, f"{name}: output {index}") for index, row in enumerate(rows)]
        raise ModelFault(
            f"{name} returned {type(rows).__name__}; a tensor, a dict of tensors or a list is expected"
        )


def load(config: ModelConfig, device: torch.device) -> LoadedModel:
    """Import, construct, load. Raises ModelFault with one clear sentence; the traceback is its cause."""
    name = f"model {config.name}"
    folder = Path(config.path)
    module_name, _, class_name = config.entrypoint.partition(":")
    if not module_name or not class_name:
        raise ModelFault(f'{name}: entrypoint {config.entrypoint!r} is not of the form "module:Class"')
    if not folder.is_dir():
        raise ModelFault(f"{name}: there is no folder {folder}")
    file = folder.joinpath(*module_name.split("."))
    if not file.with_suffix(".py").is_file() and not (file / "__init__.py").is_file():
        found = ", ".join(sorted(path.stem for path in folder.glob("*.py"))) or "no Python file at all"
        raise ModelFault(f"{name}: {folder} has no module {module_name!r}; it has {found}")
    siblings = _Siblings(folder)
    with siblings:
        try:
            module = importlib.import_module(f"{_package(config.name, config.version, folder)}.{module_name}")
        except Exception as error:  # The user's code may raise anything while it is imported.
            raise ModelFault(
                f"{name}: importing {module_name!r} failed: {_said(error)}{_place(error, folder)}"
            ) from error
        cls = getattr(module, class_name, None)
        if cls is None:
            classes = [key for key, value in vars(module).items() if isinstance(value, type)]
            own = ", ".join(key for key in classes if getattr(module, key).__module__ == module.__name__)
            raise ModelFault(
                f"{name}: {file.with_suffix('.py')} has no {class_name!r}; its classes: {own or 'none'}"
            )
        missing = [method for method in ("load", "forward") if not callable(getattr(cls, method, None))]
        if missing:
            raise ModelFault(
                f"{name}: {config.entrypoint} has no method {' and no '.join(missing)}; see docs/models.md"
            )
        try:
            instance = cls()
            instance.load(device, dict(config.options))
        except Exception as error:  # The user's code may raise anything while it loads.
            raise ModelFault(f"{name}: load() failed: {_said(error)}{_place(error, folder)}") from error
    return LoadedModel(config, instance, device)


class _Siblings:
    """While a model is loaded, its folder's modules can be imported by their plain names as well.

    They leave sys.modules afterwards, so that the next model's `layers.py` is its own. Imports that run later than
    `load` have to be relative (`from . import layers`).
    """

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder.resolve())

    def __enter__(self) -> None:
        sys.path.append(self._folder)
        importlib.invalidate_caches()

    def __exit__(self, *_: object) -> None:
        sys.path.remove(self._folder)
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            if file and not name.startswith("fleet_model_") and file.startswith(self._folder + "/"):
                del sys.modules[name]


def _package(name: str, version: str, folder: Path) -> str:
    """The folder as a package of a name of its own, so that two models may both have a model.py."""
    package = "fleet_model_" + hashlib.sha256(f"{name}\0{version}\0{folder}".encode()).hexdigest()[:16]
    if package not in sys.modules:
        spec = importlib.machinery.ModuleSpec(package, loader=None, is_package=True)
        module = ModuleType(package)
        module.__path__ = [str(folder.resolve())]
        module.__spec__ = spec
        spec.submodule_search_locations = module.__path__
        sys.modules[package] = module
    return package


def _metadata(instance: Any, attribute: str, where: str) -> list[TensorMetadata]:
    value = getattr(instance, attribute, None)
    return [] if value is None else checked_metadata(value, f"{where}.{attribute}")


def _first_misfit(values: Sequence[Any], dtype: np.dtype[Any], shape: list[int] | None) -> str:
    """The first instance that isn't numbers of the wanted shape; without a declared one, of the first one's shape."""
    wanted = shape
    for index, value in enumerate(values):
        try:
            with np.errstate(over="ignore"):
                array = np.asarray(value, dtype=dtype)
        except (ValueError, TypeError, OverflowError) as error:
            return f"instance {index}: expected numbers ({dtype.name}): {error}"
        if wanted is not None and not _fits(array.shape, wanted):
            return f"instance {index}: expected shape {wanted}, got {list(array.shape)}"
        if not np.isfinite(array).all():
            return f"instance {index}: a number is too large for {dtype.name}"
        wanted = list(array.shape) if wanted is None else wanted
    return f"the instances can't be made one array of {dtype.name}"


def _fits(shape: Sequence[int], wanted: Sequence[int]) -> bool:
    return len(shape) == len(wanted) and all(w in (-1, n) for n, w in zip(shape, wanted, strict=True))


def _array(value: Any) -> Any:
    """A tensor or something array-like as a C-ordered array in main memory; bfloat16 becomes float32."""
    if isinstance(value, torch.Tensor):
        value = value.detach()
        if value.dtype == torch.bfloat16:
            value = value.float()
        value = value.cpu().numpy()
    array = np.asarray(value)
    if array.dtype.kind in "US":
        array = array.astype(object)
    if array.dtype.kind not in "biufO":
        raise ValueError(f"of the type {array.dtype}")
    return np.ascontiguousarray(array) if array.ndim else array


def _plain(value: Any, where: str) -> Any:
    """A row as JSON-able data and arrays. Raises ModelFault for anything else."""
    if value is None or isinstance(value, str | bool | int | bytes):
        return value
    if isinstance(value, float):
        return value
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return _array(value)
    if isinstance(value, dict):
        return {str(key): _plain(item, where) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where) for item in value]
    raise ModelFault(
        f"{where} holds a {type(value).__name__}; only numbers, text, lists, dicts and tensors can be sent"
    )


def _is_finite(rows: Any) -> bool:
    if isinstance(rows, np.ndarray):
        return rows.dtype.kind != "f" or bool(np.isfinite(rows).all())
    if isinstance(rows, float):
        return math.isfinite(rows)
    if isinstance(rows, dict):
        return all(_is_finite(value) for value in rows.values())
    if isinstance(rows, list):
        return all(_is_finite(value) for value in rows)
    return True


def _said(error: BaseException) -> str:
    if isinstance(error, KeyError):
        return f"no key {error}"
    if type(error) is ValueError and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _place(error: BaseException, folder: Path) -> str:
    """The last line of the user's own that the error went through."""
    inside = str(folder.resolve())
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename.startswith(inside)]
    return f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
