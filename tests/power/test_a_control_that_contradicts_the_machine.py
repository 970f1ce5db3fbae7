"""What the power control says is checked against the machine: one that greets over SSH is not off."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleet_lab.host import Host
from fleet_lab.lab import Lab

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.power import switch

MachineOf = Callable[..., Machine]

CONTROL = """#!/bin/sh
cd "$(dirname "$0")" || exit 9
case "$1" in
  status) cat state; exit 0 ;;
esac
echo "$1" >> done
[ -e "$1.deaf" ] || cat "$1.makes" > state 2>/dev/null
"""


class Control:
    """Commands whose machine is a file; `makes` says what each order makes of it."""

    def __init__(self, folder: Path, state: str, **makes: str) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "state").write_text(state)
        for word, made in makes.items():
            (folder / f"{word}.makes").write_text(made)
        (folder / "control").write_text(CONTROL)
        (folder / "control").chmod(0o755)

    def power(self, **more: Any) -> dict[str, Any]:
        words = {word: [str(self.folder / "control"), word] for word in ("on", "off", "status")}
        times = {"boot_timeout": "2s", "off_timeout": "2s", "off_grace": "300ms"}
        return {"driver": "command", **words, **times, **more}

    def hard(self) -> list[str]:
        return [str(self.folder / "control"), "hard"]

    def done(self) -> list[str]:
        path = self.folder / "done"
        return path.read_text().split() if path.exists() else []


def own(host: Host) -> dict[str, Any]:
    made: dict[str, Any] = host.entry()
    del made["name"]
    return made


def test_off_says_the_control_but_the_machine_greets_so_nothing_is_switched_on(
    machine_of: MachineOf, ssh_hosts: Lab, tmp_path: Path
) -> None:
    control = Control(tmp_path / "control", "off", on="on")
    machine = machine_of(control.power(), own=own(ssh_hosts(1)[0]))
    with pytest.raises(
        HostFailure, match="says that it is off, but its SSH server answers, so it is not switched on"
    ):
        machine.power_on()
    assert control.done() == []


def test_off_says_the_control_after_the_order_but_the_machine_goes_on(
    machine_of: MachineOf, ssh_hosts: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switch, "SILENCE_S", 0.5)
    control = Control(tmp_path / "control", "on", off="off")
    machine = machine_of(control.power(off_timeout="700ms"), own=own(ssh_hosts(1)[0]))
    for _ in range(2):  # whoever tries again finds it off, and believes it as little
        with pytest.raises(
            HostFailure, match="but its SSH server answers, so it is not taken as off"
        ) as caught:
            machine.power_off()
        assert caught.value.kind == "power"
    assert control.done() == ["off"]


def test_a_machine_that_only_lingers_is_off_once_it_is_silent(
    machine_of: MachineOf, ssh_hosts: Lab, tmp_path: Path
) -> None:
    [host] = ssh_hosts(1)
    control = Control(tmp_path / "control", "on", off="off")
    asked: list[bool] = []
    machine = machine_of(control.power(), own=own(host))
    real = machine._power._greets  # type: ignore[attr-defined]

    def lingers() -> bool:
        asked.append(real())
        if len(asked) == 2:
            host.kill()
        return asked[-1]

    machine._power._greets = lingers  # type: ignore[attr-defined]
    assert machine.power_off() is True
    assert asked == [True, True, False]


@pytest.mark.parametrize(
    ("soft", "done"), [("off", ["off"]), ("on", ["off", "hard"])], ids=["obeys", "ignores the soft way"]
)
def test_hard_is_only_for_who_did_not_go_gracefully(
    machine_of: MachineOf, tmp_path: Path, soft: str, done: list[str]
) -> None:
    control = Control(tmp_path / "control", "on", off=soft, hard="off")
    assert machine_of(control.power(force_off=control.hard())).power_off() is True
    assert control.done() == done


def test_who_can_not_see_gives_no_second_order(machine_of: MachineOf, tmp_path: Path) -> None:
    control = Control(tmp_path / "control", "on", off="E_TIMEOUT", hard="off")
    power = control.power(force_off=control.hard(), status_off="(?i)off")
    with pytest.raises(HostFailure, match=r"whether it is off is unknown after 2 s: .*E_TIMEOUT"):
        machine_of(power).power_off()
    assert control.done() == ["off"]


def test_what_matches_neither_on_nor_off_is_unknown(machine_of: MachineOf, tmp_path: Path) -> None:
    control = Control(tmp_path / "control", "rebooting", on="on")
    machine = machine_of(control.power(status_off="(?i)off"))
    assert machine.power_status().state == "unknown"
    assert "rebooting" in machine.power_status().reason
    with pytest.raises(HostFailure, match="whether it is on is unknown"):
        machine.power_on()
    assert control.done() == []


def test_without_power_control_nothing_is_said(machine_of: MachineOf) -> None:
    assert machine_of({"driver": "none"}).power_status().state == "uncontrolled"
