"""Two virtual machines as they come from Debian, both off, in a network that leads nowhere; and a fleet of them.

The hypervisor is a host of the inventory: what is switched is switched by virsh over SSH. Whoever runs fleetctl is in
the same network, so that nobody reaches a package index; the one command that has to is run outside (`outside=True`).
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest
from fleet_lab.lab import Lab
from fleet_lab.netns import NETWORK_VARIABLE, OUTSIDE_VARIABLE, Network
from vm_lab.hypervisor import Hypervisor
from vm_lab.image import image
from vm_lab.vm import Vm

REPO = Path(__file__).resolve().parents[2]
FIGURES = pytest.StashKey[list[str]]()
NAMES = ("vm-a", "vm-b")


class Figures:
    """What was measured, told at the end of the run."""

    def __init__(self, lines: list[str]) -> None:
        self._lines = lines

    def note(self, what: str, value: float, unit: str = "s") -> None:
        self._lines.append(f"{what:<52}{value:>14,.1f} {unit}")


class Site:
    """The machines, and `fleetctl` on their fleet.yaml."""

    def __init__(self, folder: Path, hypervisor: Hypervisor, vms: list[Vm]) -> None:
        self.folder = folder
        self.hypervisor = hypervisor
        self.vms = {vm.name: vm for vm in vms}
        self.file = folder / "fleet.yaml"
        self._env = {**os.environ, "NO_COLOR": "1"}
        self._env.pop("FLEETCTL_FILE", None)

    def run(
        self, *args: str, timeout_s: float = 2700, outside: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """`fleetctl ARGS`, whatever its exit status."""
        argv = [sys.executable, "-m", "fleetctl", "-f", str(self.file), *args]
        if outside:
            argv = ["nsenter", f"--net={os.environ[OUTSIDE_VARIABLE]}", *argv]
        return subprocess.run(
            argv, capture_output=True, text=True, timeout=timeout_s, cwd=self.folder, env=self._env
        )

    def cli(self, *args: str, expect: int = 0, timeout_s: float = 2700, outside: bool = False) -> str:
        """`fleetctl ARGS`, which has to end with `expect`; its stdout."""
        done = self.run(*args, timeout_s=timeout_s, outside=outside)
        said = f"fleetctl {' '.join(args)} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
        assert done.returncode == expect, f"{said}\n{self.log()}"
        return done.stdout

    def hosts(self) -> dict[str, dict[str, Any]]:
        status = json.loads(self.cli("status", "-o", "json"))
        return {host["name"]: host for host in status["hosts"]}

    def states(self) -> dict[str, str]:
        found = self.hosts()
        return {name: found[name]["state"] for name in NAMES}

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.cli("events", "-n", "1000", "-o", "json").splitlines()]

    def wait(self, what: str, check: Callable[[], Any], timeout_s: float) -> float:
        """Seconds until `check` is truthy; fails naming `what`."""
        began = time.monotonic()
        while not check():
            if time.monotonic() - began > timeout_s:
                pytest.fail(f"not within {timeout_s:.0f} s: {what}\n{self.hosts()}\n{self.log()}")
            time.sleep(1)
        return time.monotonic() - began

    def sent(self, host: str) -> list[int]:
        """How many bytes each installation sent to a host; the last one is last."""
        told = [event["reason"] for event in self.events() if event["host"] == host]
        return [int(found[1]) for text in told if (found := re.search(r"; (\d+) bytes were sent", text))]

    def forget_wheels(self) -> None:
        """What an earlier command fetched on this machine."""
        shutil.rmtree(self.folder / ".fleetctl")

    def predict(self) -> int:
        """The status of one request through the balancer."""
        endpoint = json.loads(self.cli("status", "-o", "json"))["endpoint"]
        body = {"instances": [[1.0, 2.0, 3.0, 4.0]]}
        return httpx.post(f"{endpoint}/v1/models/tiny:predict", json=body, timeout=60).status_code

    def log(self) -> str:
        """What the daemons, the machines' consoles and libvirt wrote."""
        logs = [f"--- {p.name}\n{p.read_text(errors='replace')[-6000:]}" for p in self.folder.rglob("*.log")]
        with suppress(RuntimeError, subprocess.TimeoutExpired):
            logs += [f"--- console of {vm!r}\n{vm.console()[-1500:]}" for vm in self.vms.values()]
        return "\n".join([*logs, self.hypervisor.log()])


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """Made once: a machine keeps what was installed on it, as a real one does. Each test begins with machines that are
    off, and leaves them so."""
    if NETWORK_VARIABLE not in os.environ or os.geteuid() != 0:
        pytest.skip("virtual machines need root and a network of their own: make test-vm")
    with ExitStack() as stack:
        lab = Lab("netns", Network.around_us())
        stack.callback(lab.close)
        # Disks grow by some gigabytes: nothing that pytest would keep.
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="fleet-vm-", ignore_cleanup_errors=True))
        )
        (folder / "libvirt").mkdir()
        hypervisor = Hypervisor(folder / "libvirt")
        stack.callback(hypervisor.close)
        hypervisor.start()
        base = image()
        vms = [
            Vm(name, number, folder / name, base, hypervisor, lab.client_key)
            for number, name in enumerate(NAMES, start=1)
        ]
        [station] = lab(1)
        with lab.known_hosts.open("a") as known:
            known.writelines(f"{vm.key_line()}\n" for vm in vms)
        made = Site(folder, hypervisor, vms)
        _write(made, station)
        stack.callback(made.run, "down", "--yes", "--timeout", "3m")
        yield made


def _write(site: Site, station: Any) -> None:
    power = {
        "driver": "libvirt",
        "uri": site.hypervisor.uri,
        "via": station.name,
        # An emulated processor takes its time over everything.
        "boot_timeout": "10m",
        "off_timeout": "3m",
        "off_grace": "2m",
    }
    # Prompt in what is shown of the machines' power, patient in all that they compute.
    machines = [
        vm.entry(power=power, agent={"port": 9400, "start_timeout": "20m"}) for vm in site.vms.values()
    ]
    blocks: dict[str, Any] = {
        "fleet": "vms",
        "hosts": [station.entry(), *machines],
        "models": [
            {
                "name": "tiny",
                "source": str(REPO / "examples" / "tiny"),
                "entrypoint": "model:Tiny",
                # The build that is here: the newest brings gigabytes of CUDA.
                "requirements": [f"torch=={metadata.version('torch')}"],
            }
        ],
        "pools": [
            {
                "name": "default",
                "hosts": list(NAMES),
                "models": ["tiny"],
                "scaling": {"min_servers": 1, "max_servers": 2},
            }
        ],
        "balancer": {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"},
        "controller": {"interval": "2s", "unreachable_after": "20s"},
    }
    site.file.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in blocks.items()))


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return Figures(request.config.stash.setdefault(FIGURES, []))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("measured on these virtual machines")
        for line in lines:
            terminalreporter.write_line(line)
