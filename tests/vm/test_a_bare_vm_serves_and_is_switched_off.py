"""From two bare virtual machines to a served model and back to off: what an operator types, and what is true after it."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = [
    pytest.mark.vm,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(3000),
]

# A minute of silence is no proof of being offline; these are: no way out, no names, and nobody answers.
OFFLINE = """
ip route | grep -q default && echo "there is a default route"
getent hosts deb.debian.org && echo "names are resolved"
timeout 5 bash -c 'exec 3<>/dev/tcp/151.101.2.132/80' 2>/dev/null && echo "the mirror answers"
true
"""


def test_two_bare_machines_are_installed_offline_serve_and_are_switched_off(site: Any, figures: Any) -> None:
    first, second = site.vms["vm-a"], site.vms["vm-b"]

    def timed(what: str, *args: str) -> str:
        began = time.monotonic()
        said: str = site.cli(*args)
        figures.note(what, time.monotonic() - began)
        return said

    site.hypervisor.do("start", "vm-a")
    figures.note("a machine's boot, by hand, until SSH greets", first.wait_greets(300))
    assert first.sh(OFFLINE).stdout == "", "the machine reaches the world"
    assert "torch" not in first.sh("python3 -m pip list 2>/dev/null; ls ~/.fleetctl").stdout

    timed("doctor --host vm-a", "doctor", "--host", "vm-a")
    timed("up: installed, started, serving", "up", "--timeout", "25m")
    assert site.states() == {"vm-a": "ready", "vm-b": "off"}
    assert second.state() == "shut off"
    assert site.predict().status_code == 200
    unit = first.sh("systemctl list-units --all --plain --no-legend 'fleet*'").stdout
    assert "running" in unit, unit

    timed("up again: nothing to do", "up")
    timed("scale 2: booted, installed, serving", "scale", "2", "--timeout", "25m")
    assert site.states() == {"vm-a": "ready", "vm-b": "ready"}
    assert second.state() == "running"
    boot_s = site.hosts()["vm-b"]["power"]["boot_s"]
    figures.note("boot time learned", boot_s)
    assert 5 < boot_s < 300

    timed("scale 1: drained, stopped, off", "scale", "1")
    states = site.states()
    off = next(name for name, state in states.items() if state == "off")
    assert sorted(states.values()) == ["off", "ready"]
    assert site.vms[off].state() == "shut off" and not site.vms[off].greets()
    assert site.predict().status_code == 200

    timed("scale 2 again: booted, nothing sent, serving", "scale", "2", "--timeout", "25m")
    timed("down: both drained, stopped, off", "down", "--yes")
    assert site.states() == {"vm-a": "off", "vm-b": "off"}
    assert first.state() == second.state() == "shut off"
