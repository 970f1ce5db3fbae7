from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fleet_controller.spec import FleetSpec, load
from fleet_wire.agent import AgentStatus

TEXT = """\
fleet: demo
hosts:
  - {name: "h[1:4]", address: local}
models:
  - {name: tiny, source: tiny, entrypoint: "model:Tiny", device_memory: 2GiB}
pools:
  - {name: one, hosts: [h1, h2], models: [tiny], routing: round_robin, scaling: {max_servers: 2}}
  - {name: two, hosts: [h3, h4], models: [tiny], scaling: {max_servers: 2}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> FleetSpec:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.py").write_text("class Tiny: ...\n")
    (tmp_path / "fleet.yaml").write_text(TEXT)
    return load(tmp_path / "fleet.yaml")


@pytest.fixture
def agent() -> Callable[..., AgentStatus]:
    """agent(pid=7, latency={...}): what an agent says of itself."""

    def make(**said: Any) -> AgentStatus:
        usual: dict[str, Any] = {
            "fleet": "demo", "host": "h1", "action_id": "x", "release": "r", "pid": 7, "started_at": 1.0, "at": 2.0,
            "state": "ready", "models": [], "in_flight": 0, "queued": 0, "completed": 0, "errors": 0, "busy_s": 0.0,
            "latency": {}, "device": "cpu", "device_memory": {},
        }  # fmt: skip
        return AgentStatus.model_validate(usual | said)

    return make
