"""Which versions of which models are here, and which of them answers. PURE.

A version comes beside the one that answers, takes its place in one step, and the other leaves or is kept. Who answers
to a name is looked up once per request, so every request before that step is the old one's and every one after it the
new one's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, Protocol, TypeVar

from fleet_agent.served.stage import Stage
from fleet_wire.agent import ModelConfig


class Version(Protocol):
    """What a loaded model, or one that is to be loaded, must know of itself."""

    config: ModelConfig
    stage: Stage


M = TypeVar("M", bound=Version)


class Versions(Generic[M]):
    """`current`: who answers to each name. `everyone`: all that have or may get requests, or are being loaded.

    Both are the same objects for as long as this lives. `configs` is what each name was last asked to be, so that it
    can be loaded again by the name alone.
    """

    def __init__(self, models: Iterable[M]) -> None:
        self.current: dict[str, M] = {}
        self.everyone: list[M] = []
        self.configs: dict[str, ModelConfig] = {}
        for model in models:
            self.come(model)
            self.answer(model)

    def of(self, name: str) -> list[M]:
        """Everything of that name, who answers first."""
        found = [model for model in self.everyone if model.config.name == name]
        return sorted(found, key=lambda model: model.stage != "answering")

    def named(self, name: str, version: str) -> M | None:
        """Who takes requests that name this version."""
        for model in self.of(name):
            if model.config.version == version and model.stage in ("answering", "kept"):
                return model
        return None

    def come(self, model: M) -> None:
        """It is to be loaded; nobody asks it yet."""
        model.stage = "coming"
        self.everyone.append(model)

    def answer(self, model: M, keep: bool = False) -> M | None:
        """From now on requests for the name are its own. Answers who had them until now, who is kept or leaves."""
        name = model.config.name
        before = self.current.get(name)
        if before is model:
            return None
        model.stage = "answering"
        self.current[name] = model
        self.configs[name] = model.config
        if before is not None:
            before.stage = "kept" if keep else "leaving"
        return before

    def leave(self, model: M) -> None:
        """It gets no more requests and finishes what it has."""
        if self.current.get(model.config.name) is model:
            del self.current[model.config.name]
        model.stage = "leaving"

    def drop(self, model: M) -> None:
        """It has nothing left to do."""
        self.leave(model)
        model.stage = "gone"
        if model in self.everyone:
            self.everyone.remove(model)
