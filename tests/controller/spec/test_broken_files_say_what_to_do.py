"""Each broken/NAME.yaml is refused with exactly the lines of broken/NAME.txt.

FLEET_UPDATE=1 writes the .txt files anew; read the difference before committing it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from fleet_controller.spec import SpecError, load

BROKEN = Path(__file__).parent / "broken"
FILES = sorted(path.stem for path in BROKEN.glob("*.yaml"))


@pytest.mark.parametrize("name", FILES)
def test_broken_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(BROKEN)
    with pytest.raises(SpecError) as caught:
        load(Path(f"{name}.yaml"))
    said = str(caught.value).replace(str(BROKEN.parent), "FOLDER") + "\n"
    snapshot = BROKEN / f"{name}.txt"
    if os.environ.get("FLEET_UPDATE"):
        snapshot.write_text(said)
    assert said == snapshot.read_text()
    for line, problem in zip(said.splitlines(), caught.value.problems, strict=True):
        assert line.isprintable()
        assert re.match(rf"{name}\.yaml(:\d+:\d+)?: ", line)
        assert problem.message
        assert "hunter2" not in line and "s3cret" not in line


def test_there_are_enough_of_them() -> None:
    assert len(FILES) >= 25
    assert {path.stem for path in BROKEN.glob("*.txt")} == set(FILES)
