"""Which hosts a command line means."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from typing import Annotated

import typer

from fleet_controller.spec import FleetSpec, HostSpec
from fleetctl.failure import USAGE, Failed

# Of names that a message lists.
MOST = 8

Hosts = Annotated[
    list[str] | None,
    typer.Option(
        "--host", metavar="GLOB", help='Hosts by name or glob, as "gpu-*"; may be given several times.'
    ),
]
Pool = Annotated[str | None, typer.Option("--pool", metavar="POOL", help="The hosts of this pool.")]


def hosts_meant(spec: FleetSpec, globs: Sequence[str] = (), pool: str | None = None) -> list[HostSpec]:
    """The hosts that any of the globs matches, and of `pool` where one is named; all where neither is given.

    In the order of fleet.yaml. Raises Failed (usage) for a glob that matches no host, UnknownName for a pool.
    """
    names = [host.name for host in spec.hosts]
    meant = set(names) if pool is None else set(spec.pool(pool).hosts)
    if globs:
        matched: set[str] = set()
        for glob in globs:
            found = fnmatch.filter(names, glob)
            if not found:
                raise Failed(f'no host of {spec.source.name} is called "{glob}"; {_hint(glob, names)}', USAGE)
            matched.update(found)
        meant &= matched
        if not meant:
            raise Failed(f"none of these hosts is in the pool {pool}", USAGE)
    return [host for host in spec.hosts if host.name in meant]


def _hint(glob: str, names: Sequence[str]) -> str:
    near = difflib.get_close_matches(glob, names, 1)
    if near:
        return f'did you mean "{near[0]}"?'
    more = f" and {len(names) - MOST} more" if len(names) > MOST else ""
    return f"it has {', '.join(names[:MOST])}{more}"
