"""The whole controller in a simulated world in which anything may fail: nothing that must never happen does.

`SEED=n pytest -k one_seed` runs that world alone and prints what happened in it. `SEEDS=n` is how many 500_seeds tries.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fleet_world.fate import live
from fleet_world.world import Violation, World

from fleet_controller.spec import FleetSpec

SIZES = (1, 2, 3, 5, 10, 12)
PARTS = 4  # of the 500 seeds, side by side: `pytest -n auto`
FleetOf = Callable[[int], FleetSpec]


def lived(fleet_of: FleetOf, seed: int) -> World:
    """The world of this seed after its whole life. Raises Violation."""
    world = World(fleet_of(SIZES[seed % len(SIZES)]), seed)
    try:
        live(world)
    finally:
        world.close()
    return world


def broken(fleet_of: FleetOf, seeds: range) -> list[str]:
    found = []
    for seed in seeds:
        try:
            lived(fleet_of, seed)
        except Violation as violation:
            found.append(str(violation))
    return found


def test_15_seeds(fleet_of: FleetOf) -> None:
    assert broken(fleet_of, range(15)) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("part", range(PARTS))
def test_500_seeds(fleet_of: FleetOf, part: int) -> None:
    assert broken(fleet_of, range(part, int(os.environ.get("SEEDS", "500")), PARTS)) == []


def test_one_seed(fleet_of: FleetOf) -> None:
    seed = int(os.environ.get("SEED", "7"))
    world = World(fleet_of(SIZES[seed % len(SIZES)]), seed)
    try:
        live(world)
    finally:
        sys.stdout.write("\n".join([*world.log.lines, ""]))
        world.close()
    assert len(world.log.lines) > 10


@pytest.mark.slow
def test_the_same_seed_is_the_same_world_to_the_last_line(tmp_path: Path, fleet_of: FleetOf) -> None:
    """In processes whose strings hash differently, so that no order of a set decides anything."""
    here = lived(fleet_of, 11)
    assert here.log.digest() != lived(fleet_of, 17).log.digest()
    code = (
        "import sys; from pathlib import Path; from conftest import TEXT; from fleet_controller.spec import load\n"
        "from fleet_world.world import World; from fleet_world.fate import live\n"
        "folder = Path(sys.argv[1]); (folder / 'tiny').mkdir()\n"
        "(folder / 'tiny' / 'model.py').write_text('class Tiny: ...')\n"
        "file = folder / 'f.yaml'; file.write_text(TEXT.format(count=12, low=3))\n"
        "world = World(load(file), 11); live(world); print(world.log.digest())\n"
    )
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2] / "lab")])
    for hashes in ("1", "2"):
        env = {**os.environ, "PYTHONHASHSEED": hashes, "PYTHONPATH": paths}
        folder = tmp_path / hashes
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=env, check=True
        )
        assert done.stdout.strip() == here.log.digest()


def test_a_world_that_breaks_a_rule_says_its_seed(fleet_of: FleetOf) -> None:
    world = World(fleet_of(3), 5)
    world.begin()
    world.run(60.0)
    host = next(h for h in world.hosts.values() if h.launches)
    host.launches[next(iter(host.launches))] += 1  # as if its agent had been started twice
    with pytest.raises(Violation, match=r"SEED=5 at 60.*was started 2 times"):
        world.agents_once()
    world.close()
