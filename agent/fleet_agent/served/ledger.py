"""Who is counted where: a version that leaves and comes again counts on."""

from __future__ import annotations

import itertools

from fleet_agent.served.counters import Counters
from fleet_agent.served.served import ServedModel
from fleet_wire.agent import ModelConfig


class Ledger:
    """The counters of every version since the start, by name and version: one that is loaded again counts on."""

    def __init__(self) -> None:
        self.counters: dict[tuple[str, str], Counters] = {}
        self._loads = itertools.count(1)

    def entry(self, config: ModelConfig) -> ServedModel:
        """A model to be loaded."""
        counters = self.counters.setdefault((config.name, config.version), Counters())
        return ServedModel(config, f"{config.name}:{config.version}:{next(self._loads)}", counters)
