"""What differs between two releases, in words."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fleet_controller.actuate import open_site
from fleet_controller.foresight.makeup import UNKNOWN, differences, makeup
from fleet_controller.releasebook import ReleaseBook, made_of
from fleet_controller.spec import load
from fleet_controller.statefolder import StateFolder

TEXT = """\
fleet: demo
hosts: [{name: a, address: local}]
models:
  - {name: m, version: "VERSION", source: m, entrypoint: "model:M"MORE}
pools: [{name: default, hosts: [a], models: [m]}]
"""


def site(folder: Path, version: str = "1", more: str = "", code: str = "class M: ...\n") -> Any:
    (folder / "m").mkdir(exist_ok=True)
    (folder / "m" / "model.py").write_text(code)
    (folder / "fleet.yaml").write_text(TEXT.replace("VERSION", version).replace("MORE", more))
    spec = load(folder / "fleet.yaml")
    return open_site(spec, StateFolder.of(spec))


def test_each_part_is_named_when_it_is_another(tmp_path: Path) -> None:
    before = made_of(site(tmp_path), "default")
    told = {
        "version": differences(before, made_of(site(tmp_path, version="2"), "default")),
        "content": differences(before, made_of(site(tmp_path, code="class M: x = 1\n"), "default")),
        "settings": differences(
            before, made_of(site(tmp_path, more=", batching: {max_batch_size: 3}"), "default")
        ),
        "environment": differences(
            before, made_of(site(tmp_path, more=', requirements: ["six"]'), "default")
        ),
        "nothing": differences(before, made_of(site(tmp_path), "default")),
    }
    assert told == {
        "version": ["model m: version 1 -> 2"],
        "content": ["model m: content"],
        "settings": ["model m: settings"],
        "environment": ["environment"],
        "nothing": [],
    }


def test_agent_code_and_models_that_come_and_go() -> None:
    file = SimpleNamespace(path="lib/x.whl", sha256="1")
    other = SimpleNamespace(path="lib/x.whl", sha256="2")
    model: Any = SimpleNamespace(name="m", version="1", model_dump_json=lambda exclude: "{}")
    assert differences(makeup([file], [], []), makeup([other], [], [model])) == [
        "agent code",
        "model m: added",
    ]
    assert differences(makeup([file], [], [model]), makeup([file], [], [])) == ["model m: removed"]


def test_what_was_installed_from_here_is_in_the_book(tmp_path: Path) -> None:
    made = site(tmp_path)
    book = ReleaseBook(made.folder)
    key = made.releases["default"].key
    assert book.read(key) is None
    assert differences(book.read("unknown"), made_of(made, "default")) == [UNKNOWN]
    book.note(made)
    assert book.read(key) == made_of(made, "default")
    page = next((made.folder.path / "releases").glob("*.makeup.json"))
    page.write_text("{damaged")
    assert book.read(key) is None
    assert book.read("../../etc/passwd") is None
