"""From two bare virtual machines to a served model and back to off: what an operator types, and what is then true."""

from __future__ import annotations

import time
from typing import Any

import pytest

pytestmark = [
    pytest.mark.vm,
    pytest.mark.netns,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(5400),
]

KIND = "py3.11-glibc2.36-x86_64"
PATIENCE = ("--timeout", "40m")
# Silence alone is no proof of being offline; these are: no way out, no names, and nobody answers.
WAYS_OUT = """
ip route | grep default
getent hosts deb.debian.org
timeout 5 bash -c 'exec 3<>/dev/tcp/151.101.2.132/80' 2>/dev/null && echo "a mirror answers"
true
"""
BARE = "ls -A ~/.fleetctl 2>/dev/null; python3 -c 'import torch' 2>/dev/null && echo torch; true"
UNIT = "systemctl show $(systemctl list-units --plain --no-legend 'fleetctl*' | cut -d' ' -f1) -p "


def test_two_bare_machines_are_installed_offline_serve_and_are_switched_off(site: Any, figures: Any) -> None:
    first, second = site.vms["vm-a"], site.vms["vm-b"]

    def timed(what: str, *args: str) -> str:
        began = time.monotonic()
        said: str = site.cli(*args)
        figures.note(what, time.monotonic() - began)
        return said

    # What the machines need is fetched where there is a package index, and carried to where there is none.
    bundle = str(site.folder / "vms.bundle")
    site.cli("bundle", "--for", KIND, "-o", bundle, outside=True)
    site.forget_wheels()
    timed("bundle --load", "bundle", "--load", bundle)

    site.hypervisor.do("start", "vm-a")
    figures.note("a boot by hand, until SSH greets", first.wait_greets(600))
    assert first.sh(WAYS_OUT).stdout == "", "the machine reaches the world"
    assert first.sh(BARE).stdout == "", "the machine is not bare"
    timed("doctor", "doctor", "--host", "vm-a")

    timed("up: installed, started, serving", "up", *PATIENCE)
    assert site.states() == {"vm-a": "ready", "vm-b": "off"}
    assert second.state() == "shut off"
    assert site.predict() == 200
    assert site.sent("vm-a")[0] > 100e6, "torch came over SSH"
    unit = first.sh(UNIT + "ActiveState,MainPID,NoNewPrivileges,ProtectSystem,PrivateTmp,Restart").stdout
    assert {"ActiveState=active", "NoNewPrivileges=yes", "ProtectSystem=strict", "PrivateTmp=yes"} <= set(
        unit.split()
    )
    timed("doctor, of one that serves", "doctor", "--host", "vm-a")
    timed("up again", "up")

    timed("scale 2: booted, installed, serving", "scale", "2", *PATIENCE)
    assert site.states() == {"vm-a": "ready", "vm-b": "ready"}
    assert second.state() == "running"
    boot_s = site.hosts()["vm-b"]["power"]["boot_s"]
    figures.note("the boot time that was learned", boot_s)
    assert boot_s > 5

    timed("scale 1: drained, stopped, off", "scale", "1", *PATIENCE)
    states = site.states()
    assert sorted(states.values()) == ["off", "ready"]
    [off] = [name for name, state in states.items() if state == "off"]
    assert site.vms[off].state() == "shut off" and not site.vms[off].greets()
    assert site.predict() == 200

    timed("scale 2 again: booted, nothing sent, serving", "scale", "2", *PATIENCE)
    figures.note("bytes sent by that", site.sent(off)[-1], "bytes")
    assert site.sent(off)[-1] == 0

    timed("down: both drained, stopped, off", "down", "--yes", *PATIENCE)
    assert site.states() == {"vm-a": "off", "vm-b": "off"}
    assert first.state() == second.state() == "shut off"
