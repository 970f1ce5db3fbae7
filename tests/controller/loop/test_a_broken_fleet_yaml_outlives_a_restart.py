"""A controller that is started while fleet.yaml is broken, or can't be followed, goes on with the last good one."""

from __future__ import annotations

import json
import stat
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from fleet_controller.lifecycle import HostState

if TYPE_CHECKING:
    from conftest import Fleet

MakeFleet = Callable[..., "Fleet"]


def config(one: Fleet) -> str | None:
    status = one.journal.status()
    return None if status is None else status["controller"].get("config")


def cli(one: Fleet, *args: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "fleetctl", "-f", str(one.file), *args]
    return subprocess.run(argv, capture_output=True, text=True)


def kept(one: Fleet) -> list[str]:
    return [p.name for p in one.state.path.glob("last-good-*")]


def empty(one: Fleet) -> None:
    one.file.write_text("fleet: [")


def without_a_host_that_runs(one: Fleet) -> None:
    one.spec["hosts"] = [host for host in one.spec["hosts"] if host["name"] != "a"]
    one.spec["pools"][0].update(hosts=["b", "c"], scaling={"min_servers": 1, "max_servers": 2})
    one.change()


@pytest.mark.parametrize(
    ("spoil", "why"), [(empty, "fleet.yaml:1:9"), (without_a_host_that_runs, "no longer has a (ready)")]
)
@pytest.mark.slow
def test_it_runs_on_with_the_last_good_one_and_says_so_until_it_is_mended(
    fleet: MakeFleet, spoil: Callable[[Any], None], why: str
) -> None:
    one = fleet(hosts=3)
    good = one.file.read_text()
    controller = one.daemon()
    one.until(lambda: one.count("ready") == 1)
    assert kept(one) == ["last-good-fleet.yaml"]
    assert stat.S_IMODE((one.state.path / "last-good-fleet.yaml").stat().st_mode) == 0o600
    assert config(one) is None
    controller.kill()
    controller.wait()
    before = len(one.events())

    spoil(one)
    one.daemon()
    one.until(lambda: config(one), "the status to say it")
    assert str(config(one)).startswith("the last good fleet.yaml stays in force:") and why in str(config(one))
    [told] = [e for e in one.events("config") if e.id > before]
    assert told.reason == config(one)
    one.journal.ask("scale", pool="default", servers=2)
    one.until(lambda: one.count("ready") == 2, "it scales")

    shown, explained = cli(one, "status", "-o", "json"), cli(one, "explain", "-o", "json")
    broken = spoil is empty
    assert shown.returncode == explained.returncode == (2 if broken else 0)
    assert broken == ("is not in force; this is the fleet by the last good one" in shown.stderr)
    assert json.loads(shown.stdout)["controller"]["config"] == config(one)
    assert config(one) in json.loads(explained.stdout)["diagnosis"]
    assert cli(one, "events").returncode == (2 if broken else 0)
    assert not broken or cli(one, "scale", "1").returncode == 2

    one.file.write_text(good)
    one.until(lambda: config(one) is None, "the mended one to be in force")
    assert one.events("config")[-1].reason == "fleet.yaml was read again"
    assert one.journal.hosts()["a"].state is HostState.READY


def test_without_a_last_good_one_it_does_not_start(fleet: MakeFleet) -> None:
    one = fleet(hosts=1)
    one.file.write_text("fleet: [")
    assert one.daemon().wait(30) == 2
    assert cli(one, "status").returncode == 2


def test_once_is_never_by_another_file_than_the_one_named(fleet: MakeFleet) -> None:
    one = fleet(hosts=1)
    (one.state.path / "last-good-fleet.yaml").write_text(one.file.read_text())
    one.file.write_text("fleet: [")
    assert one.daemon("--once").wait(30) == 2
    assert one.events("scale") == []
