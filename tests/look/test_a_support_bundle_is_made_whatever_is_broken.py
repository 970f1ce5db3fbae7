"""`fleetctl support-bundle`: what is in it, what is missing and why, and that no secret of the fleet is."""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet_lab.lab import Lab

if TYPE_CHECKING:
    from conftest import Desk

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

SECRET = "c4n4ry-Zx9!%/é"


def unpacked(path: Path) -> dict[str, str]:
    with tarfile.open(path) as tar:
        assert all(entry.isreg() and not entry.name.startswith(("/", "..")) for entry in tar)
        return {
            entry.name.partition("/")[2]: tar.extractfile(entry).read().decode()  # type: ignore[union-attr]
            for entry in tar
        }


def missing(files: dict[str, str]) -> dict[str, str]:
    return {one["name"]: one["why"] for one in json.loads(files["manifest.json"])["missing"]}


def test_of_a_fleet_that_never_ran_with_a_host_that_is_silent(
    desk: Desk, ssh_hosts: Lab, black_hole: Callable[..., dict[str, Any]]
) -> None:
    [host] = ssh_hosts(1)
    (desk.folder / "bmc").write_text(SECRET + "-bmc\n")
    (desk.folder / "bmc").chmod(0o600)
    power = {
        "driver": "ipmi",
        "bmc": "127.0.0.1:1",
        "user": "root",
        "password_file": str(desk.folder / "bmc"),
    }
    index = f"https://reader:{'pip-' + 'S3cr3t'}@pypi.example.com/simple"
    entry = host.entry(power=power | {"call_timeout": "1s"}, labels={"note": "keep"})
    entry["install"] = {**entry["install"], "pip_args": ["--index-url", index]}  # type: ignore[dict-item]
    desk.write([entry, black_hole(host, "hole")])
    state = desk.folder / ".fleetctl" / "test"
    (state / "tokens").mkdir(parents=True)
    (state / "tokens" / "host-h1").write_text("agent-token-of-h1-AbC")
    (state / "controller.log").write_text(
        f"2026-01-01 00:00:00,000 INFO told agent-token-of-h1-AbC and {SECRET}-bmc\n"
        "Authorization: Bearer abcdefgh1234\n"
    )
    run = host.home / ".fleetctl" / "test" / "h1" / "run"
    run.mkdir(parents=True)
    (run / "agent.log").write_text(
        f'{{"at": "2026-01-01T00:00:00.000", "message": "HF_TOKEN={SECRET}"}}\nlast words\n'
    )
    began = time.monotonic()
    ran = desk.run("support-bundle", "-o", "out.tar.gz", "--timeout", "20s", timeout_s=150)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == b"out.tar.gz\n"
    assert time.monotonic() - began < 140  # of which the silent host may take 20, and each command 45
    path = desk.folder / "out.tar.gz"
    assert path.stat().st_mode & 0o777 == 0o600
    files = unpacked(path)
    assert {
        "manifest.json", "versions.json", "fleet.yaml", "status.json", "hosts.json", "doctor.json", "plan.json",
        "logs/controller.log", "hosts/h1/probe.json", "hosts/h1/examine.json", "hosts/h1/agent.log", "state/files.json",
    } <= set(files)  # fmt: skip
    everything = "\n".join(files.values())
    for secret in (SECRET, "agent-token-of-h1-AbC", "pip-S3cr3t", "abcdefgh1234"):
        assert secret not in everything
    assert "last words" in files["hosts/h1/agent.log"] and '"note": "keep"' in files["fleet.yaml"]
    lacking = missing(files)
    assert "hosts/hole" in lacking and "balancer/metrics.txt" in lacking
    assert b"not in it: hosts/hole: " in ran.stderr
    again = desk.run("support-bundle", "-o", "out.tar.gz")
    assert again.returncode == 2 and b"is there already" in again.stderr


def test_with_a_broken_file_and_a_broken_state_store(desk: Desk) -> None:
    desk.write([{"name": "here", "address": "local"}])
    good = (desk.folder / "fleet.yaml").read_text()
    state = desk.folder / ".fleetctl" / "test"
    state.mkdir(parents=True)
    (state / "state.db").write_bytes(b"this is no database" * 1000)
    ran = desk.run("support-bundle", "-o", "store.tar.gz", timeout_s=150)
    assert ran.returncode == 0, ran.stderr
    files = unpacked(desk.folder / "store.tar.gz")
    assert any("state" in name for name in missing(files))
    assert "hosts/here/probe.json" in files
    assert (state / "state.db").read_bytes() == b"this is no database" * 1000
    (desk.folder / "fleet.yaml").write_text(
        good.replace('"address"', '"adress"') + "\n# password: hunter22\n"
    )
    ran = desk.run("support-bundle", "-o", "file.tar.gz", timeout_s=150)
    assert ran.returncode == 0, ran.stderr
    files = unpacked(desk.folder / "file.tar.gz")
    assert "adress" in files["fleet.yaml"] and "hunter22" not in files["fleet.yaml"]
    assert "adress" in missing(files)["fleet.yaml (as a fleet)"]
