"""FleetSpec, the whole of a fleet.yaml, and FleetFile, the same as a person writes it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field

from fleet_controller.spec.address import Name
from fleet_controller.spec.balancer import BalancerSpec
from fleet_controller.spec.dates import Days
from fleet_controller.spec.duration import PositiveDuration
from fleet_controller.spec.host import Defaults, HostSpec
from fleet_controller.spec.model import ModelSpec
from fleet_controller.spec.part import Part, Text
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.spec.traffic import TrafficSpec
from fleet_wire.balancer import Routing

# Of names that a message lists.
MOST = 8

# From the first that gets hosts to the last.
TIERS = ("interactive", "batch")
Tier = Literal["interactive", "batch"]


class UnknownName(KeyError):
    """A host, model or pool that fleet.yaml does not have."""

    def __init__(self, kind: str, name: str, known: Iterable[str], source: Path) -> None:
        super().__init__(name)
        names = list(known)
        near = difflib.get_close_matches(name, names, 1)
        shown = ", ".join(names[:MOST]) + (f" and {len(names) - MOST} more" if len(names) > MOST else "")
        hint = f'did you mean "{near[0]}"?' if near else f"it has {shown or 'none'}"
        self.message = f'no {kind} "{name}" in {source.name}; {hint}'

    def __str__(self) -> str:
        return self.message


def _state(value: str) -> str:
    if not value.startswith("sqlite:///"):
        scheme = value.partition(":")[0]
        raise ValueError(
            f'"{scheme[:20]}" is not available as a state store; '
            'write "sqlite:///default" (beside this file) or "sqlite:////absolute/path.db"'
        )
    return value


class PoolSpec(Part):
    """Which hosts serve which models, and how that scales. After load, `hosts` are names."""

    name: Name = Field(description="Name of the pool.")
    hosts: tuple[Text, ...] = Field(
        min_length=1,
        description='Hosts by name, glob ("gpu-*") or range ("gpu-[01:16]"). A host may be in several pools; '
        "it serves one at a time.",
    )
    tier: Tier = Field(
        default="interactive",
        description="Who goes first where pools share hosts: an interactive pool that lacks servers borrows from a "
        "batch pool, down to its min_servers.",
    )
    models: tuple[Text, ...] = Field(min_length=1, description="Models that every host of the pool serves.")
    routing: Routing | None = Field(default=None, description="How a host is picked; none: balancer.routing.")
    traffic: TrafficSpec = Field(default=TrafficSpec(), description="How its requests are treated.")
    scaling: ScalingSpec = Field(default=ScalingSpec(), description="How many servers run.")


class ControllerSpec(Part):
    """The loop that watches the fleet and changes it."""

    interval: PositiveDuration = Field(default=5.0, description="How often it looks.")
    state: Annotated[str, AfterValidator(_state)] = Field(
        default="sqlite:///default",
        repr=False,
        description="Where it remembers what it did; default: .fleetctl/FLEET/ beside this file.",
    )
    parallel: int = Field(
        default=16,
        ge=1,
        le=1024,
        description="Hosts that are worked on at the same time, but for those that do not answer or load their models.",
    )
    unreachable_after: PositiveDuration = Field(
        default=30.0, description="How long a host may be silent before it counts as unreachable."
    )
    apply: Literal["at_once", "up"] = Field(
        default="at_once",
        description='When an edited fleet.yaml counts: "at_once", or "up": from the next `fleetctl up` on.',
    )
    price_per_kwh: float | None = Field(
        default=None,
        ge=0,
        description="What a kilowatt-hour costs; with a host's watts it adds to its price.",
    )


class FleetFile(Part):
    """fleet.yaml: the machines, the models, and how they scale."""

    fleet: Name = Field(description="Name of the fleet.")
    defaults: Defaults = Field(default=Defaults(), description="What holds for every host.")
    hosts: tuple[HostSpec, ...] = Field(min_length=1, description="The inventory: machines that may run.")
    models: tuple[ModelSpec, ...] = Field(min_length=1, description="The models.")
    pools: tuple[PoolSpec, ...] = Field(min_length=1, description="Which hosts serve which models.")
    holidays: Days = Field(
        default=(),
        description="Days that the pools' schedules call holidays: 2026-12-25, or 12-25 for every year.",
    )
    balancer: BalancerSpec = Field(default=BalancerSpec(), description="The front door.")
    controller: ControllerSpec = Field(default=ControllerSpec(), description="The control loop.")


class FleetSpec(Part):
    """A fleet.yaml found good: ranges, globs and defaults are worked in, paths are absolute."""

    fleet: Name
    hosts: tuple[HostSpec, ...]
    models: tuple[ModelSpec, ...]
    pools: tuple[PoolSpec, ...]
    balancer: BalancerSpec = BalancerSpec()
    controller: ControllerSpec = ControllerSpec()
    source: Path

    def host(self, name: str) -> HostSpec:
        """Raises UnknownName."""
        try:
            return self._hosts[name]
        except KeyError:
            raise UnknownName("host", name, self._hosts, self.source) from None

    def model(self, name: str) -> ModelSpec:
        """Raises UnknownName."""
        try:
            return self._models[name]
        except KeyError:
            raise UnknownName("model", name, self._models, self.source) from None

    def pool(self, name: str) -> PoolSpec:
        """Raises UnknownName."""
        try:
            return self._pools[name]
        except KeyError:
            raise UnknownName("pool", name, self._pools, self.source) from None

    def pool_of(self, host: str, recorded: str | None = None) -> PoolSpec | None:
        """The pool that `host` serves; None for a host in none (a jump host, a hypervisor).

        One that may serve several serves the `recorded` one, or else the first of them in fleet.yaml.
        """
        pools = self._pools_of.get(host, ())
        if recorded is not None and len(pools) > 1:
            return next((pool for pool in pools if pool.name == recorded), pools[0])
        return pools[0] if pools else None

    def pools_of(self, host: str) -> tuple[PoolSpec, ...]:
        """The pools that `host` may serve, in the order of fleet.yaml."""
        return self._pools_of.get(host, ())

    @cached_property
    def shared(self) -> frozenset[str]:
        """Hosts that may serve several pools."""
        return frozenset(host for host, pools in self._pools_of.items() if len(pools) > 1)

    def __copy__(self) -> Self:
        # model_copy(update=...) must not take the indexes of what it replaces along.
        copied = super().__copy__()
        for index in ("_hosts", "_models", "_pools", "_pools_of", "shared"):
            copied.__dict__.pop(index, None)
        return copied

    @cached_property
    def _hosts(self) -> dict[str, HostSpec]:
        return {host.name: host for host in self.hosts}

    @cached_property
    def _models(self) -> dict[str, ModelSpec]:
        return {model.name: model for model in self.models}

    @cached_property
    def _pools(self) -> dict[str, PoolSpec]:
        return {pool.name: pool for pool in self.pools}

    @cached_property
    def _pools_of(self) -> dict[str, tuple[PoolSpec, ...]]:
        found: dict[str, tuple[PoolSpec, ...]] = {}
        for pool in self.pools:
            for host in pool.hosts:
                found[host] = (*found.get(host, ()), pool)
        return found
