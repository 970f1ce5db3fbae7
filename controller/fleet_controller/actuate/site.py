"""Site: what one version of fleet.yaml gives the actuator to work with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from fleet_controller.hosts.machine import Machines
from fleet_controller.hosts.install.release import Release, build
from fleet_controller.lifecycle import HostState
from fleet_controller.observe import Target
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec, PoolSpec
from fleet_controller.statefolder import StateFolder

# A host in one of these may have an agent that answers.
ASKED_STATES = frozenset({HostState.READY, HostState.DRAINING, HostState.UNREACHABLE})


@dataclass(frozen=True)
class Site:
    """The spec, its machines, a release per pool, and where the agents' tokens lie."""

    spec: FleetSpec
    machines: Machines
    releases: Mapping[str, Release]
    folder: StateFolder

    def pool(self, record: HostRecord) -> PoolSpec:
        """The pool for which the host was started last."""
        pool = self.spec.pool_of(record.name, record.pool)
        assert pool is not None, f"{record.name} is in no pool"
        return pool

    def pool_that_runs(self, host: str, release: str) -> PoolSpec | None:
        """Which of the host's pools `release` belongs to; None: none of them."""
        pools = self.spec.pools_of(host)
        return next((pool for pool in pools if self.releases[pool.name].key == release), None)

    def token(self, host: str) -> str:
        return self.folder.token(f"host-{host}")

    def known_before(self, host: str) -> bool:
        """Whether an agent was ever started there: then its token is here."""
        return self.folder.has_token(f"host-{host}")

    def target(self, record: HostRecord) -> Target | None:
        """Where to ask the host's agent; None while it is not known to have one."""
        if record.agent_port is None:
            return None
        return Target(
            self.machines.machine(record.name).agent_url(record.agent_port), self.token(record.name)
        )

    def targets(self, records: Mapping[str, HostRecord]) -> dict[str, Target]:
        """Every agent that may answer, by its host's name."""
        return {
            name: target
            for name, record in records.items()
            if record.state in ASKED_STATES and self.spec.pool_of(name) is not None
            if (target := self.target(record)) is not None
        }


def open_site(spec: FleetSpec, folder: StateFolder) -> Site:
    """Machines and releases for `spec`. Raises HostFailure when a release can't be built."""
    models = {pool.name: [spec.model(name) for name in pool.models] for pool in spec.pools}
    releases = {name: build(spec, wanted) for name, wanted in models.items()}
    return Site(spec, Machines(spec, folder.path), releases, folder)
