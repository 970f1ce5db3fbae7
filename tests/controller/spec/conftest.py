"""Fleets to change and to break."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

GOOD = """\
fleet: demo
hosts:
  - {name: a, address: 10.0.0.1}
  - {name: b, address: 10.0.0.2}
models:
  - {name: tiny, source: tiny, entrypoint: "model:Tiny"}
pools:
  - {name: default, hosts: [a, b], models: [tiny]}
"""


@pytest.fixture
def good() -> str:
    """A small fleet.yaml that is right."""
    return GOOD


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str | bytes], Path]:
    """Writes a fleet.yaml beside a model folder `tiny`, and answers its path."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.py").write_text("class Tiny: ...\n")

    def put(text: str | bytes) -> Path:
        path = tmp_path / "fleet.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return path

    return put
