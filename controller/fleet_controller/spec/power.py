"""How a host is switched on and off: the keys of `power:`, and which of them belongs to which driver."""

from __future__ import annotations

import ipaddress
import json
import re
import shlex
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from fleet_controller.spec.duration import Duration, PositiveDuration
from fleet_controller.spec.localpath import LocalPath
from fleet_controller.spec.part import Part, Text

PowerDriver = Literal["none", "command", "libvirt", "redfish", "ipmi", "wol"]

_COMMANDS = frozenset({"on", "off", "status", "force_off", "status_on", "status_off", "via"})
_BMC = frozenset({"bmc", "user", "password_file", "password_env"})
# The keys that only some drivers read; the others (group, time limits) are for all.
KEYS_OF: dict[str, frozenset[str]] = {
    "command": _COMMANDS,
    "libvirt": frozenset({"uri", "domain", "via"}),
    "redfish": _BMC | {"system", "ca_file", "insecure"},
    "ipmi": _BMC | {"cipher_suite", "via"},
    "wol": frozenset({"mac", "broadcast", "off", "via"}),
}
# What each driver can't do without.
NEEDS: dict[str, tuple[str, ...]] = {
    "command": ("on", "off", "status"),
    "redfish": ("bmc",),
    "ipmi": ("bmc", "user"),
    "wol": ("mac",),
}


def _argv(value: object) -> object:
    if isinstance(value, str):
        try:
            words = shlex.split(value)
        except ValueError:
            words = value.split()
        raise ValueError(f"is one text; write the command as a list of its words: {json.dumps(words)}")
    return value


def _driver(value: object) -> object:
    if isinstance(value, str) and value.lower() in ("proxmox", "vmware", "aws", "gcp", "azure", "pdu"):
        raise ValueError(
            f'"{value[:20]}" has no driver of its own; use "driver: command" with on, off and status, '
            "as [qm, start, 100] for Proxmox or a cloud's own command line"
        )
    return value


def _regex(value: str) -> str:
    try:
        re.compile(value)
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


def _word(value: str) -> str:
    if not value or value.startswith("-") or not value.isprintable():
        raise ValueError(
            f"{json.dumps(value[:60])} is empty, starts with a dash, or holds control characters"
        )
    return value


def _uri(value: str) -> str:
    if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^\s\x00-\x1f\x7f]*", value):
        raise ValueError(
            f'"{value[:70]}" is not a libvirt URI; write it as "qemu:///system" or "qemu+ssh://root@HOST/system"'
        )
    return value


def _path(value: str) -> str:
    if not re.fullmatch(r"/[^\s\x00-\x1f\x7f]*", value):
        raise ValueError(f'"{value[:70]}" is not a path on the BMC; write it as "/redfish/v1/Systems/1"')
    return value


def _bmc(value: str) -> str:
    if not value or not value.isprintable() or " " in value or value.startswith("-"):
        raise ValueError(f"{json.dumps(value[:60])} is no address")
    if "@" in value:
        raise ValueError("holds a user or a password; write user, and password_file or password_env")
    return value


def _mac(value: str) -> str:
    if not re.fullmatch(r"[0-9A-Fa-f]{2}([:-]?)[0-9A-Fa-f]{2}(\1[0-9A-Fa-f]{2}){4}", value):
        raise ValueError(f'"{value[:40]}" is not a MAC address; write it as "52:54:00:12:34:56"')
    return value


def _broadcast(value: str) -> str:
    address, colon, port = value.partition(":")
    try:
        ipaddress.IPv4Address(address)
    except ValueError:
        raise ValueError(f'"{value[:40]}" is not an IPv4 address; write it as "10.0.0.255"') from None
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535):
        raise ValueError(f'"{port[:20]}" is not a port; write a number between 1 and 65535')
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value, re.ASCII):
        raise ValueError(
            f'"{value[:40]}" is not the name of an environment variable, and no password belongs here'
        )
    return value


Argv = Annotated[tuple[Text, ...], BeforeValidator(_argv)]
Regex = Annotated[str, AfterValidator(_regex)]


class PowerSpec(Part):
    """How a host is switched on and off. {name} and {address} stand for the host's own, in commands, domain and bmc."""

    driver: Annotated[PowerDriver, BeforeValidator(_driver)] = Field(
        default="none",
        description='"none": always on. "command": the commands below. "libvirt": a domain, by virsh. "redfish", '
        '"ipmi": by its BMC. "wol": woken over the network, shut down over SSH.',
    )
    on: Argv = Field(default=(), description='command: switches it on, as [virsh, start, "{name}"].')
    off: Argv = Field(
        default=(),
        description="command: switches it off. wol: run on the host itself; none: sudo -n systemctl poweroff.",
    )
    force_off: Argv = Field(
        default=(), description="command: switches it off hard, where off did not within off_grace."
    )
    status: Argv = Field(default=(), description='command: prints its state, as [virsh, domstate, "{name}"].')
    status_on: Regex = Field(
        default=r"(?i)\b(on|running|up|active)\b",
        description="command: regular expression found in the output of status when the host is on.",
    )
    status_off: Regex | None = Field(
        default=None,
        description="command: found in it when the host is off; none: off is what is not on. With it, what matches "
        "neither is unknown.",
    )
    via: str | None = Field(
        default=None,
        description="command, libvirt, ipmi, wol: host of the inventory from which this is done; none: this machine.",
    )
    uri: Annotated[str, AfterValidator(_uri)] = Field(
        default="qemu:///system", description="libvirt: where the domain is, as virsh -c takes it."
    )
    domain: Annotated[Text, AfterValidator(_word)] = Field(
        default="{name}", description="libvirt: the domain's name or UUID."
    )
    bmc: Annotated[str, AfterValidator(_bmc)] | None = Field(
        default=None,
        description='redfish: URL of the BMC, as "https://10.0.9.11". ipmi: its address, as "10.0.9.11" or '
        '"10.0.9.11:623". May hold a range of as many.',
    )
    user: Annotated[Text, AfterValidator(_word)] | None = Field(
        default=None, description="redfish, ipmi: user of the BMC."
    )
    password_file: LocalPath | None = Field(
        default=None,
        description="redfish, ipmi: file whose first line is the password; readable by you alone.",
    )
    password_env: Annotated[str, AfterValidator(_variable)] | None = Field(
        default=None,
        description="redfish, ipmi: environment variable of the controller that holds the password.",
    )
    system: Annotated[str, AfterValidator(_path)] | None = Field(
        default=None, description="redfish: path of the system; none: the only one that the BMC has."
    )
    ca_file: LocalPath | None = Field(
        default=None,
        description="redfish: certificate (authority) of the BMC; none: those this machine trusts.",
    )
    insecure: bool = Field(
        default=False, description="redfish: do not check who the BMC is; also needed for http://."
    )
    cipher_suite: int | None = Field(
        default=None,
        ge=1,
        le=17,
        description="ipmi: 17 or 3; none: ipmitool asks the BMC, which may take seconds.",
    )
    mac: Annotated[str, AfterValidator(_mac)] | None = Field(
        default=None, description="wol: MAC address of the host's network card."
    )
    broadcast: Annotated[str, AfterValidator(_broadcast)] = Field(
        default="255.255.255.255:9", description="wol: where the packet is sent, ADDRESS or ADDRESS:PORT."
    )
    group: Annotated[Text, AfterValidator(_word)] | None = Field(
        default=None, description="Rack or circuit whose hosts do not all start at once; none: no limit."
    )
    boots_at_once: int = Field(
        default=4,
        ge=1,
        description="So many hosts of the group may be starting (switched on, not yet reachable).",
    )
    boot_timeout: PositiveDuration = Field(default=300.0, description="How long switching on may take.")
    off_timeout: PositiveDuration = Field(
        default=120.0, description="How long switching off may take in all."
    )
    off_grace: Duration = Field(
        default=60.0,
        description="How long it may take to shut down by itself; then it is switched off hard. 0: hard at once.",
    )
    call_timeout: PositiveDuration = Field(
        default=20.0, description="How long one question or order to the power control may take."
    )
