"""What a `power:` block must say for its driver, and what the blocks of several hosts must say about each other."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from fleet_controller.spec.address import address
from fleet_controller.spec.draft import Draft, Entry, Findings
from fleet_controller.spec.host import HostSpec
from fleet_controller.spec.power import KEYS_OF, NEEDS, PowerSpec
from fleet_controller.spec.problem import Steps
from fleet_controller.spec.ranges import expand, has_range

_MOST_VIA = 8
_OWN = frozenset().union(*KEYS_OF.values())


def check_power(draft: Draft, found: Findings) -> None:
    """Note all that is wrong with how hosts are switched."""
    _defaults(draft.file.defaults.power, found)
    groups: dict[str, tuple[int, str]] = {}
    hosts = draft.entry_of()
    for entry in draft.entries:
        written = entry.written
        if written is None or not entry.hosts or written.is_local:
            continue
        host = entry.hosts[0]
        given = draft.file.defaults.power.model_fields_set | written.power.model_fields_set
        if "driver" in given:
            _foreign(written.power, host.power.driver, (*entry.steps, "power"), found)
            _needs(host, entry, found)
            _bmc(host, entry, found)
        else:
            _no_driver(entry, given, found)
        _one_each(entry, found)
        _group(host, entry, groups, found)
        for host in entry.hosts:
            if host.power.via is not None and "via" in KEYS_OF.get(host.power.driver, ()):
                _via(host, entry, hosts, draft, found)


def _defaults(power: PowerSpec, found: Findings) -> None:
    if "driver" in power.model_fields_set and power.driver != "none":
        _foreign(power, power.driver, ("defaults", "power"), found)


def _foreign(power: PowerSpec, driver: str, block: Steps, found: Findings) -> None:
    """Keys that are written here and that the driver does not read."""
    for key in sorted(power.model_fields_set & _OWN - KEYS_OF.get(driver, frozenset())):
        others = [name for name, keys in KEYS_OF.items() if key in keys]
        names = " and ".join(others)
        message = f"is for driver: {names}, and this is driver: {driver}; remove it, or change the driver"
        found.add(
            (*block, key), message, key=True, needs=[(*block, "driver"), ("defaults", "power", "driver")]
        )


def _needs(host: HostSpec, entry: Entry, found: Findings) -> None:
    power, block = host.power, _block(entry)
    missing = [key for key in NEEDS.get(power.driver, ()) if not getattr(power, key)]
    if missing:
        wanted = NEEDS[power.driver]
        needs = f"{', '.join(wanted[:-1])} and {wanted[-1]}" if len(wanted) > 1 else wanted[0]
        found.add(
            block,
            f"driver: {power.driver} needs {needs}; {' and '.join(missing)} "
            f"{'is' if len(missing) == 1 else 'are'} missing",
            key=True,
            needs=[(*at, key) for key in missing for at in (block, ("defaults", "power"))],
        )
    if power.driver not in ("redfish", "ipmi"):
        return
    sources = [key for key in ("password_file", "password_env") if getattr(power, key)]
    if len(sources) == 2:
        found.add(
            entry.where("power", sources[1]), "password_file says it already; remove one of them", key=True
        )
    elif bool(sources) != bool(power.user) and "user" not in missing:
        have, lacks = ("a password", "user") if sources else ("a user", "password_file or password_env")
        found.add(block, f"has {have} but no {lacks}; write it too", key=True)


def _bmc(host: HostSpec, entry: Entry, found: Findings) -> None:
    power = host.power
    if power.bmc is None or power.driver not in ("redfish", "ipmi"):
        return
    at = entry.where("power", "bmc")
    if has_range(power.bmc) and len(entry.hosts) > 1:  # a range of another size than the names: see _one_each
        return
    if power.driver == "ipmi":
        name, _, port = (
            power.bmc.rpartition(":") if re.search(r"[^:]:\d+$", power.bmc) else (power.bmc, "", "0")
        )
        try:
            address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            name = ""
        if not name or name == "local" or int(port[:6]) > 65535:
            message = (
                f'"{power.bmc[:70]}" is not the address of a BMC; write it as "10.0.9.11" or "10.0.9.11:623"'
            )
            found.add(at, message)
        return
    try:
        url = urlsplit(power.bmc)
        good = url.scheme in ("https", "http") and bool(url.hostname) and not url.query and url.port != 0
    except ValueError:
        good = False
    if not good:
        found.add(at, f'"{power.bmc[:70]}" is not the URL of a BMC; write it as "https://10.0.9.11"')
    elif url.scheme == "http" and not power.insecure:
        message = 'would send the password in clear; write "https://...", or "insecure: true" beside it'
        found.add(at, message, needs=[entry.where("power", "insecure")])
    elif power.ca_file is not None and power.insecure:
        message = 'is not looked at with "insecure: true"; remove one of them'
        found.add(entry.where("power", "ca_file"), message, key=True)


def _no_driver(entry: Entry, given: set[str], found: Findings) -> None:
    keys = given & _OWN
    if not keys:
        return
    block = _block(entry)
    needs = [(*block, "driver"), ("defaults", "power", "driver")]
    fits = [name for name, known in KEYS_OF.items() if keys <= known]
    what = "commands" if keys <= KEYS_OF["command"] else " and ".join(sorted(keys)[:3])
    driver = fits[0] if fits else "command"
    found.add(block, f'has {what} but no driver; write "driver: {driver}"', key=True, needs=needs)


def _one_each(entry: Entry, found: Findings) -> None:
    """An entry of many hosts: each needs a BMC, a domain or a card of its own."""
    if len(entry.hosts) < 2:
        return
    power = entry.hosts[0].power
    key = {"redfish": "bmc", "ipmi": "bmc", "libvirt": "domain", "wol": "mac"}.get(power.driver)
    values = [getattr(host.power, key) for host in entry.hosts] if key else []
    written = values[0] if values else None
    if written is None or len(set(values)) == len(values):
        return
    at = entry.where("power", str(key))
    if has_range(written) and len(expand(written)) != len(entry.hosts):
        message = f'"{written[:70]}" is {len(expand(written)):,}, but these are {len(entry.hosts):,} hosts'
        found.add(at, f"{message}; make both ranges the same size")
    elif not (power.driver == "redfish" and len({host.power.system for host in entry.hosts}) == len(values)):
        how = "give each host an entry of its own" if key == "mac" else 'write "{name}" or a range into it'
        found.add(at, f"is the same for {len(entry.hosts):,} hosts; {how}")


def _group(host: HostSpec, entry: Entry, groups: dict[str, tuple[int, str]], found: Findings) -> None:
    """Who is in one group must agree on how many of it may start at once."""
    power = host.power
    if power.group is None:
        return
    most, first = groups.setdefault(power.group, (power.boots_at_once, host.name))
    if most != power.boots_at_once:
        message = f'is {power.boots_at_once}, but {most} for "{first}" of the same group "{power.group}"'
        found.add(entry.where("power", "boots_at_once"), f"{message}; write the same for both")


def _via(
    host: HostSpec, entry: Entry, hosts: dict[str, tuple[Entry, HostSpec]], draft: Draft, found: Findings
) -> None:
    via = host.power.via or ""
    steps = entry.where("power", "via")
    if via not in hosts:
        if draft.complete_hosts and via not in draft.host_names():
            hint = found.did_you_mean(via, hosts) or "add it to hosts"
            found.add(steps, f'"{via}" is not a host of the inventory; {hint}')
        return
    way = [host.name]
    while len(way) <= _MOST_VIA + 1 and way[-1] in hosts:
        power = hosts[way[-1]][1].power
        if "via" not in KEYS_OF.get(power.driver, ()) or power.via is None:
            return
        way.append(power.via)
        if power.via == host.name:
            circle = " -> ".join(way[:6])
            found.add(steps, f"goes in a circle: {circle}; a host that is off cannot switch itself on")
            return


def _block(entry: Entry) -> Steps:
    own = entry.written is not None and entry.written.power.model_fields_set
    return (*entry.steps, "power") if own else ("defaults", "power")
