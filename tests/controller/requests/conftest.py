from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_controller.journal import Answer, Journal, Request
from fleet_controller.requests import Refused, apply
from fleet_controller.spec import FleetSpec, load

TEXT = """\
fleet: demo
hosts:
  - {name: "h[1:3]", address: local}
  - {name: h4, address: 127.0.0.4, power: {driver: libvirt}}
models:
  - {name: tiny, source: tiny, entrypoint: "model:Tiny"}
pools:
  - {name: one, hosts: [h1, h2], models: [tiny], scaling: {min_servers: 1, max_servers: 2}}
  - {name: two, hosts: [h3, h4], models: [tiny], scaling: {min_servers: 0, max_servers: 2}}
"""


@pytest.fixture
def spec(tmp_path: Path) -> FleetSpec:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.py").write_text("class Tiny: ...\n")
    (tmp_path / "fleet.yaml").write_text(TEXT)
    return load(tmp_path / "fleet.yaml")


@pytest.fixture
def journal(spec: FleetSpec, tmp_path: Path) -> Iterator[Journal]:
    opened = Journal.open(f"sqlite:///{tmp_path / 'state.db'}")
    opened.enlist([h.name for h in spec.hosts], 1.0)
    yield opened
    opened.close()


@pytest.fixture
def ask(spec: FleetSpec, journal: Journal) -> Callable[..., Answer]:
    """ask("scale", pool="one", servers=2): the answer."""

    def answer(kind: str, **args: Any) -> Answer:
        try:
            return Answer(True, True, apply(Request(1, kind, args, 5.0), spec, journal, 5.0))
        except Refused as refusal:
            return Answer(True, False, str(refusal))

    return answer
