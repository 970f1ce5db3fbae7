from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from fleet_controller.hosts.install import target
from fleet_controller.hosts.install.resolve import Needs
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

# Every Python that is started notes its arguments and its environment.
NOTES = """
import json, os, sys
with open({path!r}, "a") as file:
    file.write(json.dumps([sys.orig_argv, dict(os.environ)]) + "\\n")
"""


@pytest.mark.usefixtures("offline")
def test_choosing_and_fetching_wheels_shows_pip_no_password(
    fleet_of: Callable[..., FleetSpec],
    tmp_path: Path,
    index: Path,
    make_wheel: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(NOTES.format(path=str(tmp_path / "notes")))
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("CANARY_BMC", "cnrybmc")
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    make_wheel(index, "fleetprobe")
    power = {"driver": "ipmi", "bmc": "10.0.0.9", "user": "root", "password_env": "CANARY_BMC"}
    spec = fleet_of([{"name": "h1", "address": "10.0.0.7", "power": power}])
    kind = target.parse(f"py{sys.version_info[0]}.{sys.version_info[1]}-glibc2.36-x86_64")
    needs = Needs(("fleetprobe==1",), (), ("--no-index", "--find-links", str(index)))
    with Machines(spec, tmp_path / "state") as machines:
        wheels = machines.stock.wheels
        [wheel] = wheels.lock(needs, kind, print).wheels
        wheels.shelf.find(wheel.sha256).unlink()  # type: ignore[union-attr]
        assert wheels.wheel(wheel, needs, kind, print).is_file()
    ran = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    downloads = [environment for argv, environment in ran if "download" in argv]
    assert len(downloads) >= 2
    for environment in downloads:
        assert "CANARY_BMC" not in environment and "cnrybmc" not in environment.values()
        assert environment["PIP_NO_CACHE_DIR"] == "1" and "PATH" in environment
