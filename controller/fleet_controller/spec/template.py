"""What `fleetctl init` writes: a fleet.yaml that documents itself, and a small model to start with."""

from __future__ import annotations

import importlib.resources
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class FirstModel:
    """The model that the written fleet.yaml serves."""

    name: str = "hello"
    source: str = "models/hello"
    entrypoint: str = "model:Hello"
    about: str = "A toy that turns text into numbers; put your own beside it."


HELLO = FirstModel()


def init_text(fleet: str = "demo", model: FirstModel = HELLO) -> str:
    """A commented fleet.yaml: three local hosts, one model, one pool, and every other key in a comment."""
    text = _resource("fleet.yaml")
    for mark, value in (
        ("@FLEET@", fleet),
        ("@MODEL@", model.name),
        ("@SOURCE@", model.source),
        ("@ENTRYPOINT@", model.entrypoint),
        ("@ABOUT@", model.about),
    ):
        text = text.replace(mark, value)
    return text


def init_files(fleet: str = "demo") -> dict[str, str]:
    """Relative path -> text of each file that makes an empty folder a fleet that `fleetctl up` can start."""
    return {
        "fleet.yaml": init_text(fleet),
        f"{HELLO.source}/model.py": _resource("model.py.txt"),
    }


def _resource(name: str) -> str:
    return (
        importlib.resources.files("fleet_controller.spec").joinpath("first", name).read_text(encoding="utf-8")
    )
