"""The user's code: how a folder becomes an importable package, and which class of it is meant."""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import itertools
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from fleet_agent.model.faults import ModelFault, place, said
from fleet_wire.agent import ModelConfig

_PREFIX = "fleet_model_"


def class_of(config: ModelConfig) -> type[Any]:
    """The class that the entrypoint names; call it within `Siblings`. Raises ModelFault, its cause the traceback."""
    name = f"model {config.name}"
    folder = Path(config.path)
    module_name, _, class_name = config.entrypoint.partition(":")
    if not module_name or not class_name:
        raise ModelFault(f'{name}: entrypoint {config.entrypoint!r} is not of the form "module:Class"')
    file = folder.joinpath(*module_name.split("."))
    if not file.with_suffix(".py").is_file() and not (file / "__init__.py").is_file():
        found = ", ".join(sorted(path.stem for path in folder.glob("*.py"))) or "no Python file at all"
        raise ModelFault(f"{name}: {folder} has no module {module_name!r}; it has {found}")
    try:
        module = importlib.import_module(f"{_package(config.name, config.version, folder)}.{module_name}")
    except Exception as error:  # The user's code may raise anything while it is imported.
        raise ModelFault(
            f"{name}: importing {module_name!r} failed: {said(error)}{place(error, folder)}"
        ) from error
    cls: type[Any] | None = getattr(module, class_name, None)
    if cls is None:
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        own = ", ".join(key for key in classes if getattr(module, key).__module__ == module.__name__)
        raise ModelFault(
            f"{name}: {file.with_suffix('.py')} has no {class_name!r}; its classes: {own or 'none'}"
        )
    return cls


class Siblings:
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
            if file and not name.startswith(_PREFIX) and file.startswith(self._folder + "/"):
                del sys.modules[name]


def forget(instance: object) -> None:
    """The modules that were imported for this model alone leave sys.modules, and with them what they hold."""
    package, _, _ = type(instance).__module__.partition(".")
    if package.startswith(_PREFIX):
        for name in [name for name in sys.modules if name == package or name.startswith(package + ".")]:
            del sys.modules[name]


def _package(name: str, version: str, folder: Path) -> str:
    """The folder as a package of a name of its own, so that two models may both have a model.py, and a model that is
    loaded again reads its files again."""
    first = _PREFIX + hashlib.sha256(f"{name}\0{version}\0{folder}".encode()).hexdigest()[:16]
    package = next(p for n in itertools.count() if (p := f"{first}_{n}" if n else first) not in sys.modules)
    spec = importlib.machinery.ModuleSpec(package, loader=None, is_package=True)
    module = ModuleType(package)
    module.__path__ = [str(folder.resolve())]
    module.__spec__ = spec
    spec.submodule_search_locations = module.__path__
    sys.modules[package] = module
    return package
