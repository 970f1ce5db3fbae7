"""Where the state lies, who may read it, and who holds its locks."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from fleet_controller.spec import load
from fleet_controller.statefolder import Locked, StateFolder

Write = Callable[..., Path]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize(
    ("state", "folder", "url"),
    [
        ("sqlite:///default", "{here}/.fleetctl/demo", "sqlite:///{here}/.fleetctl/demo/state.db"),
        ("sqlite:///there/s.db", "{here}/there", "sqlite:///{here}/there/s.db"),
        ("sqlite:////var/lib/f/s.db", "/var/lib/f", "sqlite:////var/lib/f/s.db"),
    ],
)
def test_it_lies_beside_fleet_yaml_or_where_the_store_is(
    write: Write, tmp_path: Path, state: str, folder: str, url: str
) -> None:
    spec = load(write())
    spec = spec.model_copy(update={"controller": spec.controller.model_copy(update={"state": state})})
    found = StateFolder.of(spec)
    assert str(found.path) == folder.format(here=tmp_path)
    assert found.journal_url == url.format(here=tmp_path)


def test_tokens_are_made_once_and_for_their_owner_only(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        folder = StateFolder(tmp_path / "state", "")
        token = folder.token("host-a")
    finally:
        os.umask(old)
    assert len(token) >= 32
    assert folder.token("host-a") == StateFolder(folder.path, "").token("host-a") == token
    assert folder.token("host-b") != token
    assert mode(folder.token_file("host-a")) == 0o600
    assert mode(folder.path) == mode(folder.path / "tokens") == 0o700
    assert sorted(p.name for p in (folder.path / "tokens").iterdir()) == ["host-a", "host-b"]


RACE = """
import sys
from pathlib import Path
from fleet_controller.statefolder import StateFolder
folder = StateFolder(Path(sys.argv[1]), "")
print("ready", flush=True)
sys.stdin.readline()
print(*[folder.token(f"host-{n}") for n in range(50)])
"""


def test_processes_that_race_for_a_token_get_the_same(tmp_path: Path) -> None:
    argv = [sys.executable, "-c", RACE, str(tmp_path / "state")]
    racers = [
        subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    tokens = {racer.communicate(timeout=60)[0] for racer in racers}
    assert len(tokens) == 1
    assert len(set(tokens.pop().split())) == 50


def test_threads_that_race_for_a_token_get_the_same(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state", "")
    for n in range(20):
        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(lambda _, n=n: folder.token(f"host-{n}"), range(8)))) == 1


HOLD = """
import sys
from pathlib import Path
from fleet_controller.statefolder import StateFolder
with StateFolder(Path(sys.argv[1]), "").lock("controller"):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_names_its_holder_and_ends_with_it(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path / "state", "")
    argv = [sys.executable, "-c", HOLD, str(folder.path)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with (
            pytest.raises(Locked, match=f"process {holder.pid} holds the controller lock"),
            folder.lock("controller"),
        ):
            pass
        with folder.lock("operator"):  # another lock is free
            pass
        holder.kill()
    with folder.lock("controller"):
        pass
