"""Releases that served are kept, packed; a pool that was sent back stays so until something else is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install import release as releases
from fleet_controller.hosts.install.archives import Archives
from fleet_controller.hosts.install.earlier import KEPT, EarlierReleases, NothingEarlier, Pin
from fleet_controller.spec import FleetSpec


@pytest.fixture
def spec(fleet_of: Callable[..., FleetSpec]) -> FleetSpec:
    return fleet_of([{"name": "here", "address": "local"}], length=3)


def test_one_that_served_comes_back_as_it_was(spec: FleetSpec, tmp_path: Path) -> None:
    earlier, archives = EarlierReleases(tmp_path), Archives(tmp_path)
    first = releases.build(spec.models)
    earlier.note("p", first, spec.models, archives)
    source = spec.models[0].source
    assert source is not None
    (source / "model.py").write_text("class Broken: ...\n")
    second = releases.build(spec.models)
    assert earlier.previous("p", second) == first.key
    with pytest.raises(NothingEarlier):
        earlier.previous("p", first)
    earlier.pin({"p": Pin(first.key, second.key, 1.0)})
    back = EarlierReleases(tmp_path).in_force("p", second)
    assert back is not None
    assert back.models == spec.models
    assert back.release.key == first.key
    assert back.release.environment_key(()) == first.environment_key(())
    path, _ = Archives(tmp_path).get(back.release)
    path.write_bytes(b"damaged")
    with pytest.raises(HostFailure, match="rollback --clear"):
        Archives(tmp_path).get(back.release)


def test_it_is_over_when_something_else_serves(spec: FleetSpec, tmp_path: Path) -> None:
    earlier, archives = EarlierReleases(tmp_path), Archives(tmp_path)
    first = releases.build(spec.models)
    earlier.note("p", first, spec.models, archives)
    mark = earlier.mark()
    earlier.pin({"p": Pin(first.key, "bad", 1.0)})
    assert earlier.mark() != mark
    earlier.note("p", first, spec.models, archives)
    assert "p" in earlier.pins()
    third = replace(first, key="c" * 20)
    assert earlier.in_force("p", third) is None
    earlier.note("p", third, spec.models, archives)
    assert earlier.pins() == {}
    assert earlier.served("p") == [first.key, third.key]


def test_the_last_few_are_kept(spec: FleetSpec, tmp_path: Path) -> None:
    earlier, archives = EarlierReleases(tmp_path), Archives(tmp_path)
    built = releases.build(spec.models)
    for number in range(KEPT + 3):
        earlier.note("p", replace(built, key=f"{number}" * 20), spec.models, archives)
    assert len(earlier.served("p")) == KEPT + 1
    assert len(list(tmp_path.glob("*.kept.json"))) == KEPT + 1
    with pytest.raises(NothingEarlier):
        earlier.read("0" * 20)
