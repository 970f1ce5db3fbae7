from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

TEXT = """\
fleet: demo
hosts:
  - {name: a, address: local}
models:
  - {name: tiny, source: tiny, entrypoint: "model:Tiny"}
pools:
  - {name: default, hosts: [a], models: [tiny]}
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes fleet.yaml: the text given, put after a good one."""
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.py").write_text("class Tiny: ...\n")

    def put(more: str = "") -> Path:
        (tmp_path / "fleet.yaml").write_text(TEXT + more)
        return tmp_path / "fleet.yaml"

    return put
