"""`fleetctl bundle`: made where there is a package index, loaded where there is none; a damaged one is refused."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.install import release, target, wheel
from fleet_controller.hosts.install.bundle import BundleError, load
from fleet_controller.hosts.install.installer import Stock
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import load as load_spec
from fleet_controller.statefolder import StateFolder

WEIGHTS = os.urandom(300_000)
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


def fleetctl(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "fleetctl", *map(str, arguments)]
    return subprocess.run(argv, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture
def small_agent(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An agent that needs one small wheel instead of torch, here and in the programs that are started."""
    monkeypatch.setattr(wheel, "extra_requirements", lambda requires, extra: ["fleetprobe==1"])
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from fleet_controller.hosts.install import wheel\n"
        "wheel.extra_requirements = lambda requires, extra: ['fleetprobe==1']\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def home(tmp_path: Path, host: Host, index: Path, make_wheel: Callable[..., Path]) -> Path:
    """A fleet of one host, where the index is there."""
    make_wheel(index, "fleetprobe", requires=("fleetdeep",))
    make_wheel(index, "fleetdeep", filler=100_000)
    folder = tmp_path / "home"
    (folder / "models" / "tiny").mkdir(parents=True)
    (folder / "models" / "tiny" / "model.py").write_text("class Tiny: ...\n")
    (folder / "models" / "tiny" / "model.safetensors").write_bytes(WEIGHTS)
    pip_args = ["--no-index", "--find-links", str(index)]
    entry: dict[str, Any] = {**host.entry(), "install": {"python": sys.executable, "pip_args": pip_args}}
    model = {
        "name": "tiny",
        "source": "models/tiny",
        "entrypoint": "model:Tiny",
        "weights": [{"file": "model.safetensors", "sha256": SHA256}],
    }
    pool = {"name": "default", "hosts": ["h1"], "models": ["tiny"], "scaling": {"max_servers": 1}}
    value = {"fleet": "test", "hosts": [entry], "models": [model], "pools": [pool]}
    (folder / "fleet.yaml").write_text(json.dumps(value))
    return folder


def members(path: Path) -> list[str]:
    with tarfile.open(path) as tar:
        return tar.getnames()


@pytest.mark.slow
@pytest.mark.usefixtures("small_agent", "offline")
def test_made_at_home_loaded_at_a_site_and_installed_there(
    home: Path, host: Host, index: Path, tmp_path: Path
) -> None:
    made = fleetctl("bundle", "-o", tmp_path / "one.bundle", cwd=home)
    assert made.returncode == 0, made.stderr
    assert "2 wheels for py3." in made.stderr
    names = members(tmp_path / "one.bundle")
    assert names[0] == "manifest.json"
    assert f"weights/{SHA256}" in names
    assert "site/models/tiny/model.py" in names
    assert any(name.startswith("agent/fleetctl_agent-") for name in names)
    for path in index.iterdir():  # the site has nothing of this
        path.unlink()
    site = tmp_path / "elsewhere"
    loaded = fleetctl("bundle", "--load", tmp_path / "one.bundle", "--into", site, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert (site / "models" / "tiny" / "model.safetensors").read_bytes() == WEIGHTS
    assert fleetctl("validate", cwd=site).returncode == 0
    spec = load_spec(site / "fleet.yaml")
    with Machines(spec, StateFolder.of(spec).path) as machines:
        built = release.build(spec.models)
        assert machines.machine("h1").install(built).sent_bytes > 400_000
        assert machines.machine("h1").install(built).sent_bytes == 0
    [environment] = (host.home / ".fleetctl" / "test" / "h1" / "environments").glob("*-py*")
    assert (environment / "bin" / "fleetdeep").exists()
    again = fleetctl("bundle", "--load", tmp_path / "one.bundle", "--into", site, cwd=tmp_path)
    assert again.returncode == 1
    assert "is in the way" in again.stderr


@pytest.mark.usefixtures("small_agent", "offline")
def test_a_damaged_bundle_is_refused_with_the_part_named_and_nothing_is_taken(
    home: Path, tmp_path: Path
) -> None:
    whole = tmp_path / "one.bundle"
    kind = f"py{sys.version_info[0]}.{sys.version_info[1]}-glibc2.36-x86_64"
    made = fleetctl("bundle", "-o", whole, "--for", kind, cwd=home)
    assert made.returncode == 0, made.stderr
    data = whole.read_bytes()
    with tarfile.open(whole) as tar:
        offset = next(one.offset_data for one in tar if one.name.startswith("weights/"))
        last = tar.getmembers()[-1].name
    damaged = {
        "flipped": (
            data[: offset + 5] + bytes([data[offset + 5] ^ 1]) + data[offset + 6 :],
            f"weights/{SHA256}",
        ),
        "cut": (data[: offset + 1000], "weights/"),
        "other": (b"no bundle at all", "no bundle"),
        "empty": (b"", "no bundle"),
    }
    for name, (content, word) in damaged.items():
        path = tmp_path / f"{name}.bundle"
        path.write_bytes(content)
        with pytest.raises(BundleError, match=word):
            load(path, Stock(tmp_path / f"state-{name}"), lambda text: None)
        assert not list((tmp_path / f"state-{name}").rglob("*.whl")), "nothing is taken"
        assert not list((tmp_path / f"state-{name}").rglob("*.json"))
    refused = fleetctl("bundle", "--load", tmp_path / "flipped.bundle", cwd=home)
    assert refused.returncode == 1
    assert f"weights/{SHA256} is not what the manifest says" in refused.stderr
    assert last.startswith("wheels/")
    wrong = fleetctl("bundle", "--for", "linux", cwd=home)
    assert wrong.returncode == 2
    assert "py3.11-glibc2.36-x86_64" in wrong.stderr


@pytest.mark.usefixtures("small_agent", "offline")
def test_without_index_and_bundle_the_message_names_both(home: Path, index: Path) -> None:
    for path in index.iterdir():
        path.unlink()
    made = fleetctl("bundle", "--for", "py3.12-glibc2.28-aarch64", cwd=home)
    assert made.returncode == 1
    assert "fleetprobe" in made.stderr
    assert "fleetctl bundle --load FILE" in made.stderr
    assert not (home / "test.bundle").exists()


@pytest.mark.usefixtures("small_agent", "offline")
def test_a_password_in_fleet_yaml_stays_at_home_and_the_site_finds_its_wheels_all_the_same(
    home: Path, index: Path, tmp_path: Path
) -> None:
    path = home / "fleet.yaml"
    value = json.loads(path.read_text())
    value["hosts"][0]["install"]["pip_args"] += [
        "--extra-index-url",
        "https://cnryuser:cnrypip@pypi.invalid/simple",
    ]
    path.write_text(json.dumps(value))
    whole, site = tmp_path / "one.bundle", tmp_path / "elsewhere"
    kind = f"py{sys.version_info[0]}.{sys.version_info[1]}-glibc2.36-x86_64"
    made = fleetctl("bundle", "-o", whole, "--for", kind, cwd=home)
    assert made.returncode == 0, made.stderr
    assert "left out of its fleet.yaml: the user and password in install.pip_args" in made.stderr
    assert b"cnrypip" not in whole.read_bytes() and b"cnryuser" not in whole.read_bytes()
    loaded = fleetctl("bundle", "--load", whole, "--into", site, cwd=tmp_path)
    assert loaded.returncode == 0, loaded.stderr
    assert "no password in install.pip_args any more" in loaded.stderr
    spec = load_spec(site / "fleet.yaml")
    [host] = spec.hosts
    assert host.install.pip_args[-1] == "https://pypi.invalid/simple"
    for file in index.iterdir():
        file.unlink()
    wheels = Stock(StateFolder.of(spec).path).wheels
    found = wheels.lock(
        release.build(spec.models).needs(host.install.pip_args), target.parse(kind), lambda text: None
    )
    assert len(found.wheels) == 2, "nobody was asked again"


@pytest.mark.usefixtures("small_agent", "offline")
def test_a_password_that_can_t_be_left_out_makes_no_bundle(home: Path, tmp_path: Path) -> None:
    path = home / "fleet.yaml"
    args = '"pip_args": ["-f", "https://reader:cnry\\u0070ip@pypi.invalid/", '
    path.write_text(path.read_text().replace('"pip_args": [', args))
    kind = f"py{sys.version_info[0]}.{sys.version_info[1]}-glibc2.36-x86_64"
    refused = fleetctl("bundle", "-o", tmp_path / "one.bundle", "--for", kind, cwd=home)
    assert refused.returncode == 1
    assert "install.pip_args holds a password that would travel" in refused.stderr
    assert "cnrypip" not in refused.stderr
    assert not (tmp_path / "one.bundle").exists()
