"""Fleets for simulated worlds."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from fleet_controller.spec import FleetSpec, load

TEXT = """\
fleet: world
hosts: [{{name: "h[01:{count:02}]", address: local, agent: {{drain_timeout: 10s, start_timeout: 120s}}}}]
models: [{{name: m, version: "1", source: tiny, entrypoint: "model:Tiny"}}]
pools:
  - name: default
    hosts: ["h*"]
    models: [m]
    scaling:
      min_servers: {low}
      max_servers: {count}
      target_utilization: 0.7
      cooldown: {{scale_up: 10s, scale_down: 60s}}
      stabilization: {{scale_up: 0s, scale_down: 60s}}
controller: {{interval: 10s, unreachable_after: 30s}}
"""


@pytest.fixture(scope="session")
def fleet_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], FleetSpec]:
    """fleet_of(count): the spec of a fleet of so many hosts."""
    folder: Path = tmp_path_factory.mktemp("world")
    (folder / "tiny").mkdir()
    (folder / "tiny" / "model.py").write_text("class Tiny: ...\n")

    @cache
    def make(count: int) -> FleetSpec:
        file = folder / f"fleet-{count}.yaml"
        file.write_text(TEXT.format(count=count, low=max(1, count // 4)))
        return load(file)

    return make
