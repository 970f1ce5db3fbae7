"""`fleetctl state`: see it, check it, copy it, and make a lost or damaged one again while the fleet serves."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from fleet_controller.journal import upkeep

pytestmark = [pytest.mark.fleet, pytest.mark.slow, pytest.mark.timeout(240)]


def agents(fleet: Any) -> set[int]:
    return {json.loads(p.read_text())["pid"] for p in fleet.folder.rglob("run/agent.json")}


def spoil(path: Path) -> None:
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE hosts SET failures = 9 WHERE name = 'h1'")
    connection.close()


async def test_a_damaged_store_is_made_again_from_the_hosts_while_they_serve(
    fleet: Any, local_hosts: str
) -> None:
    fleet.write(local_hosts, {"min_servers": 2, "max_servers": 3})
    done = fleet.run("state", "show")
    assert done.returncode == 1 and "there is no state store yet; `fleetctl up` makes it" in done.stderr
    fleet.cli("up")
    fleet.cli("keys", "create", "shop")
    before = agents(fleet)
    assert len(before) == 2

    shown = json.loads(fleet.cli("state", "show", "-o", "json"))
    path = Path(shown["path"])
    assert shown["problems"] == [] and shown["revision"] == shown["newest"] and shown["rows"]["hosts"] == 3
    assert "whole" in fleet.cli("state", "show")
    assert fleet.cli("state", "check") == ""
    fleet.cli("state", "backup", str(fleet.folder / "copy.db"))
    fleet.cli("state", "backup", str(fleet.folder / "copy.db"), expect=1)

    refused = fleet.run("state", "rebuild")
    assert refused.returncode == 2 and "--yes" in refused.stderr

    spoil(path)
    checked = fleet.run("state", "check")
    assert checked.returncode == 1 and "the row 'h1' of hosts is damaged" in checked.stdout
    assert "fleetctl state rebuild" in checked.stderr
    async with fleet.load(rate=5) as load:
        told = await asyncio.to_thread(fleet.cli, "state", "rebuild", "--yes")
    assert load.sent and not load.failed, load.failed[:3]
    assert sorted(told.splitlines()) == ["h1: ready", "h2: ready"]
    assert agents(fleet) == before
    assert fleet.pool()["ready"] == 2
    assert not [e for e in fleet.events() if e["kind"] in ("booting", "draining", "stopping")]
    [kept] = [p for p in path.parent.glob("state.db.2*") if not p.name.endswith(("-wal", "-shm"))]
    assert [text for text in upkeep.problems(kept) if "'h1' of hosts" in text]
    assert fleet.cli("state", "check") == ""
