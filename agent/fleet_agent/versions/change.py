"""What can be asked of the models that are here: load one, or unload it. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fleet_wire.agent import ModelConfig

Old = Literal["unload", "keep", "unload-first"]
Result = Literal["loaded", "switched", "unloaded", "unchanged"]


@dataclass(frozen=True)
class Load:
    """`old`: what becomes of the version that answers now. `again`: also if nothing has changed."""

    config: ModelConfig
    old: Old = "unload"
    again: bool = False
    timeout_s: float = field(default=600.0, compare=False)

    def __str__(self) -> str:
        return f"version {self.config.version} is being loaded"


@dataclass(frozen=True)
class Unload:
    """`version` None: all of them."""

    name: str
    version: str | None = None
    timeout_s: float = field(default=600.0, compare=False)

    def __str__(self) -> str:
        return f"{'it' if self.version is None else f'version {self.version}'} is being unloaded"
