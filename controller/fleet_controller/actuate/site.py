"""Site: what one version of fleet.yaml gives the actuator to work with."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fleet_controller.hosts.install.earlier import EarlierReleases, chosen
from fleet_controller.hosts.install.release import Release, build
from fleet_controller.hosts.machines import Machines
from fleet_controller.hosts.sudo import SudoPassword
from fleet_controller.lifecycle import HostState
from fleet_controller.observe import Target
from fleet_controller.records import HostRecord
from fleet_controller.spec import FleetSpec, ModelSpec, PoolSpec
from fleet_controller.statefolder import StateFolder

log = logging.getLogger(__name__)

# A host in one of these may have an agent that answers.
ASKED_STATES = frozenset({HostState.READY, HostState.DRAINING, HostState.UNREACHABLE})


@dataclass(frozen=True)
class Site:
    """The spec, its machines, a release per pool, and where the agents' tokens lie."""

    spec: FleetSpec
    machines: Machines
    releases: Mapping[str, Release]
    folder: StateFolder
    models: Mapping[str, tuple[ModelSpec, ...]] = field(default_factory=dict)
    earlier: EarlierReleases | None = None
    mark: object = None
    sent_back: Mapping[str, str] = field(default_factory=dict)  # pool -> the release that fleet.yaml asks for

    def models_of(self, pool: PoolSpec) -> Sequence[ModelSpec]:
        """The models as the pool's release has them: an earlier one's are not those of fleet.yaml."""
        return self.models.get(pool.name) or [self.spec.model(name) for name in pool.models]

    def serves(self, pool: str, release: Release) -> None:
        """An agent is ready with `release`: it is kept, to go back to. Raises HostFailure where that fails."""
        if self.earlier is not None and release.key == self.releases[pool].key:
            self.earlier.note(pool, release, self.models[pool], self.machines.stock.archives)

    @property
    def is_outdated(self) -> bool:
        """Whether a pool was sent back, or on, since this was opened."""
        return self.earlier is not None and self.earlier.mark() != self.mark

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


def open_site(spec: FleetSpec, folder: StateFolder, sudo: SudoPassword | None = None) -> Site:
    """Machines and releases for `spec`. Raises HostFailure when a release can't be built."""
    earlier = EarlierReleases(folder.path / "releases")
    mark = earlier.mark()
    wanted = {pool.name: [spec.model(name) for name in pool.models] for pool in spec.pools}
    built = {name: build(models) for name, models in wanted.items()}
    in_force = {name: chosen(earlier, name, one, wanted[name], log.error) for name, one in built.items()}
    releases = {name: one.release for name, one in in_force.items()}
    models = {name: one.models for name, one in in_force.items()}
    sent_back = {name: one.key for name, one in built.items() if releases[name].key != one.key}
    machines = Machines(spec, folder.path, sudo)
    return Site(spec, machines, releases, folder, models, earlier, mark, sent_back)
