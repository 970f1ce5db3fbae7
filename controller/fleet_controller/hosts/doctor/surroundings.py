"""What was seen of the operator's own machine. PURE."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Kept:
    """A file of ours: who else may read or write it. `mode` None: it is not there, or not seen (`trouble` says why)."""

    path: str
    purpose: str
    mode: int | None = None
    ours: bool = True
    trouble: str = ""


@dataclass(frozen=True)
class Port:
    """A port of the balancer. `holder`: why it can't be had; "" where it can. `ours`: our balancer has it."""

    address: str
    key: str
    holder: str = ""
    ours: bool = False


@dataclass(frozen=True)
class Program:
    """What a power driver needs here. `hosts` are those that need it."""

    name: str
    package: str
    hosts: tuple[str, ...]
    there: bool


@dataclass(frozen=True)
class Surroundings:
    """`secrets`: private keys and password files. `unknown_hosts`: hosts without a line, by known_hosts file.
    `agent_keys` None: there is no SSH agent (`agent_trouble` says why); `needs_agent`: hosts that name no key file.
    `synchronized` None: nobody can tell. `state_free` bytes."""

    fleet_file: Kept
    secrets: tuple[Kept, ...] = ()
    known_hosts: tuple[Kept, ...] = ()
    unknown_hosts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    agent_keys: int | None = None
    agent_trouble: str = ""
    needs_agent: tuple[str, ...] = ()
    usual_keys: tuple[str, ...] = ()
    synchronized: bool | None = None
    state: Kept | None = None
    state_there: str = ""
    state_free: int | None = None
    programs: tuple[Program, ...] = ()
    ports: tuple[Port, ...] = ()
    journal_trouble: str = ""
