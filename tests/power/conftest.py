"""Machines whose power is controlled by real peers, and a machine's own SSH port where that matters."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import load

MachineOf = Callable[..., Machine]


@pytest.fixture
def machine_of(tmp_path: Path) -> Iterator[MachineOf]:
    """`machine_of(power, *others)`: the machine "m1" with this power block; nothing listens on its SSH port.

    `own` replaces keys of its entry, and `others` are further entries of hosts.
    """
    with ExitStack() as stack:

        def make(
            power: dict[str, Any], *others: dict[str, Any], own: dict[str, Any] | None = None
        ) -> Machine:
            source = tmp_path / "tiny"
            source.mkdir(exist_ok=True)
            (source / "model.py").write_text("class Tiny: ...\n")
            first = {"name": "m1", "address": "127.9.9.9", "ssh": {"port": 1}, **(own or {}), "power": power}
            spec = {
                "fleet": "test",
                "hosts": [first, *others],
                "models": [{"name": "tiny", "source": str(source), "entrypoint": "model:Tiny"}],
                "pools": [{"name": "default", "hosts": ["*"], "models": ["tiny"]}],
            }
            path = tmp_path / "fleet.yaml"
            path.write_text(json.dumps(spec))
            return stack.enter_context(Machines(load(path), tmp_path / "state")).machine("m1")

        yield make
