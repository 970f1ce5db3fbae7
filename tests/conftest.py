"""Offers every test real SSH hosts (`ssh_hosts`); when a test fails, their logs are in its report."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).resolve().parent / "lab"))

from fleet_lab.lab import Lab
from fleet_lab.netns import Network

# CI tries the same examples each time: a change is judged by what it changed. A run at a desk tries new ones.
settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    settings.load_profile("ci")

# Tests start thousands of Pythons. Where this is set, as in many images of containers, each of them compiles our own
# modules anew: half of what it takes to start a controller (1.6 s of processor, 0.85 without).
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

LABS = pytest.StashKey[list[Lab]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--hosts",
        choices=["sshd", "netns"],
        default="sshd",
        help="what stands for machines: sshd servers on loopback, or network namespaces (root, see tests/lab/netns.py)",
    )


@pytest.fixture
def ssh_hosts(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """A Lab: `ssh_hosts(3)` makes three hosts that run. All is gone after the test."""
    backend = request.config.getoption("--hosts")
    lab = Lab(backend, Network.around_us() if backend == "netns" else None)
    request.node.stash.setdefault(LABS, []).append(lab)
    try:
        yield lab
    finally:
        lab.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and call.when == "call":
        for lab in item.stash.get(LABS, []):
            report.sections += [(f"log of host {host.name}", host.log()) for host in lab.hosts]
    return report
