"""Premises: what a plan made now would rest on, read from where it is written."""

from __future__ import annotations

from fleet_controller.actuate import Site
from fleet_controller.foresight.basis import Basis, HostBasis
from fleet_controller.journal import HostRecord, Journal
from fleet_controller.lifecycle import HostState
from fleet_controller.operation import Scope


def read_basis(site: Site, file: str, journal: Journal) -> Basis:
    """`file` is the checksum of the fleet.yaml that `site` was made from."""
    records, scope = journal.hosts(), Scope.model_validate(journal.scope())
    left_out = [] if scope.only is None else [f"only {','.join(sorted(scope.only))}"]
    left_out += [f"not {','.join(sorted(scope.away))}"] if scope.away else []
    left_out += (
        [f"kept {','.join(sorted(f'{n}={key}' for n, key in scope.kept.items()))}"] if scope.kept else []
    )
    up = journal.goal() == "up"
    return Basis(
        fleet=site.spec.fleet,
        file=file,
        goal="up" if up else "down",
        releases={name: release.key for name, release in site.releases.items()},
        desired={pool.name: journal.pool(pool.name).desired for pool in site.spec.pools},
        hosts={
            host.name: _host(records.get(host.name) or HostRecord(host.name))
            for host in site.spec.hosts
            if site.spec.pools_of(host.name)
        },
        asked="; ".join(left_out) if up else "",
    )


def _host(record: HostRecord) -> HostBasis:
    runs = record.state is not HostState.OFF
    return HostBasis(
        state=record.state.value,
        pool=record.pool if runs else None,
        release=record.release if runs else None,
        out=record.cordoned,
    )
