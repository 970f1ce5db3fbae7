"""Every broken fleet.yaml ends each command that acts with exit 2 and its known lines, and nothing is touched."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SPEC_TESTS = Path(__file__).parents[1] / "controller" / "spec"
FILES = sorted(path.stem for path in (SPEC_TESTS / "broken").glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_up_refuses_it_and_touches_nothing(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fleetctl: Callable[..., Any]
) -> None:
    place = tmp_path / "place"
    shutil.copytree(SPEC_TESTS / "models", place / "models")
    (place / "broken").mkdir()
    shutil.copy(SPEC_TESTS / "broken" / f"{name}.yaml", place / "broken")
    monkeypatch.chdir(place / "broken")
    before = sorted(place.rglob("*"))
    for command in (["up"], ["down", "--yes"], ["scale", "1"], ["validate"]):
        ran = fleetctl("-f", f"{name}.yaml", *command)
        assert ran.code == 2, ran
        assert ran.out == ""
        said = ran.err.replace(str(place), "FOLDER")
        for line in (SPEC_TESTS / "broken" / f"{name}.txt").read_text().splitlines():
            assert line in said, f"{line}\nis not in\n{said}"
        assert "Traceback" not in said
    assert sorted(place.rglob("*")) == before
