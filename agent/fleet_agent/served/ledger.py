"""Who is counted where: a version that leaves and comes again counts on."""

from __future__ import annotations

import itertools

from fleet_agent.served.counters import Counters
from fleet_agent.served.served import ServedModel
from fleet_wire.agent import ModelConfig

OLDER = "(older)"
_KEPT = 64  # versions that are gone


class Ledger:
    """The counters of every version since the start, by name and version: one that is loaded again counts on.

    Of versions that are gone the last ones are kept; those before them are counted together, as `OLDER` of their name.
    """

    def __init__(self) -> None:
        self.counters: dict[tuple[str, str], Counters] = {}
        self._models: list[ServedModel] = []
        self._loads = itertools.count(1)

    def entry(self, config: ModelConfig) -> ServedModel:
        """A model to be loaded."""
        named = (config.name, config.version)
        counters = self.counters.pop(named) if named in self.counters else Counters()
        self.counters[named] = counters  # as the last one
        model = ServedModel(config, f"{config.name}:{config.version}:{next(self._loads)}", counters)
        self._models = [*(other for other in self._models if other.stage != "gone"), model]
        self._fold({(here.config.name, here.config.version) for here in self._models})
        return model

    def _fold(self, here: set[tuple[str, str]]) -> None:
        gone = [named for named in self.counters if named not in here and named[1] != OLDER]
        for named in gone[:-_KEPT]:
            self.counters.setdefault((named[0], OLDER), Counters()).merge(self.counters.pop(named))
