"""Hosts that are one machine under two names, or copies of one image: seen only by looking at all of them. PURE."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.facts import items, text
from fleet_controller.hosts.doctor.finding import Finding, problem, warning

NEW_ID = (
    "on all but one of them: sudo rm -f /etc/machine-id /var/lib/dbus/machine-id && sudo systemd-machine-id-setup"
    " && sudo reboot (not done by --fix: other software knows the machine by it)"
)
NEW_KEYS = (
    "on all but one of them, at the console: sudo rm /etc/ssh/ssh_host_* && sudo ssh-keygen -A && sudo systemctl"
    " restart ssh; then put the new keys into known_hosts"
)


def twins(charts: Iterable[Chart]) -> dict[str, list[Finding]]:
    """The findings of each host that has any."""
    found: dict[str, list[Finding]] = defaultdict(list)
    remote = [chart for chart in charts if not chart.spec.is_local]
    for place, same in _groups(remote, _place).items():
        for chart in same:
            others = _others(chart, same)
            why = "two agents would share one device, and the fleet counts capacity that is not there"
            fix = "Correct the address of one of them, or remove it from fleet.yaml"
            found[chart.name].append(problem("twins", f"{others} has the same address, {place}", why, fix))
    known = [chart for chart in remote if _identity(chart, "machine_id")]
    for machine_id, same in _groups(known, lambda c: _identity(c, "machine_id")).items():
        for chart in same:
            here = [c for c in same if _identity(c, "boot_id") == _identity(chart, "boot_id")]
            apart = [c for c in same if c not in here]
            # Of the same boot as well: not a copy, the very same machine.
            elsewhere = [c for c in here if _place(c) != _place(chart)]
            if elsewhere:
                why = "two agents would share one device, and the fleet counts capacity that is not there"
                fix = "Remove one of them from fleet.yaml, unless it is meant so (containers, tests)"
                what = f"{_others(chart, elsewhere)} is the same machine (machine-id and boot-id are equal)"
                found[chart.name].append(warning("twins", what, why, fix))
            if apart:
                what = (
                    f"{_others(chart, apart)} has the same machine-id ({machine_id[:12]}...): a copied image"
                )
                why = "DHCP gives both one address, and journals and licences take them for one machine"
                found[chart.name].append(warning("twins", what, why, NEW_ID))
    for chart in known:
        copies = [c for c in known if c is not chart and _shares_key(chart, c)]
        if copies:
            names = ", ".join(sorted(c.name for c in copies)[:5])
            why = "who has one of them can pretend to be the other, and fleetctl can't tell them apart"
            what = f"{names} has the same SSH host key: a copied image"
            found[chart.name].append(problem("twins", what, why, NEW_KEYS))
    return dict(found)


def _groups(charts: Iterable[Chart], key: Callable[[Chart], str]) -> dict[str, list[Chart]]:
    """Those of which there is more than one."""
    found: dict[str, list[Chart]] = defaultdict(list)
    for chart in charts:
        found[key(chart)].append(chart)
    return {name: same for name, same in found.items() if len(same) > 1}


def _place(chart: Chart) -> str:
    return f"{chart.spec.address} port {chart.spec.ssh.port}"


def _identity(chart: Chart, name: str) -> str:
    return chart.facts.of("identity").text(name)


def _others(chart: Chart, same: list[Chart]) -> str:
    names = sorted(c.name for c in same if c is not chart)
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _shares_key(one: Chart, other: Chart) -> bool:
    if _identity(one, "boot_id") == _identity(other, "boot_id"):
        return False  # one machine, or of one kernel (containers)
    keys = {text(key, 2000) for key in items(one.facts.of("identity").value.get("host_keys"))} - {""}
    return not keys.isdisjoint(
        text(key, 2000) for key in items(other.facts.of("identity").value.get("host_keys"))
    )
