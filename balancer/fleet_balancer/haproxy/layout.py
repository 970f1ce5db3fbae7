"""The list of pools and hosts, as HAProxy is to know it: its names, what its configuration and maps say. PURE.

Also decides what of a list this engine can't do, and says so: nothing is accepted and then ignored.
"""

from __future__ import annotations

from fleet_balancer.haproxy.maps import (
    MODELS,
    TEXTS,
    TOKENS,
    checked,
    key_maps,
    shown,
)
from fleet_balancer.haproxy.plan import Plan, PoolPlan, header_name
from fleet_balancer.haproxy.slots import Slots
from fleet_wire.balancer import Backend, BackendList, PoolConfig
from fleet_wire.refusal import Refusal

Host = tuple[str, str]


def host_of(backend: Backend) -> Host:
    """What tells one host from another: the same name at another address is another one."""
    return backend.name, backend.address


class Layout:
    """HAProxy's names. A pool keeps its id while it is there; ids and places are never given to another pool."""

    def __init__(self) -> None:
        self.slots: dict[str, Slots[Host]] = {}
        self._ids: dict[str, str] = {}
        self._next = 1
        self._hops: set[str] = set()

    def id_of(self, pool: str) -> str:
        """Raises KeyError for a pool that no plan has named."""
        return self._ids[pool]

    def hops(self, pool: str) -> bool:
        return self.id_of(pool) in self._hops

    def plan(self, new: BackendList, *, lenient: bool) -> Plan:
        """What the configuration would say with `new`. Raises Refusal (bad_request) for what this engine can't do."""
        _refuse_unfit(new)
        for config in new.pools:
            if config.name not in self._ids:
                self._ids[config.name] = f"p{self._next}"
                self.slots[f"p{self._next}"] = Slots(f"p{self._next}s")
                self._next += 1
        pools = tuple(self._pool(config, new, lenient) for config in new.pools)
        return Plan(
            pools=pools,
            groups=tuple(
                (_group(ids), ids) for ids in sorted(set(self._by_model(new).values())) if len(ids) > 1
            ),
            keys=new.keys is not None,
            peeks=len(new.pools) > 1,
            open_pools=tuple(self._ids[config.name] for config in new.pools if not config.models),
        )

    def take(self, new: BackendList, plan: Plan) -> None:
        """`new` is in force: hosts have their places."""
        names = {config.name for config in new.pools}
        for name in [n for n in self._ids if n not in names]:
            gone = self._ids.pop(name)
            del self.slots[gone]
            self._hops.discard(gone)
        self._hops |= {pool.id for pool in plan.pools if pool.hops}
        for config in new.pools:
            self.slots[self._ids[config.name]].seat(host_of(b) for b in new.backends if b.pool == config.name)

    def maps(self, new: BackendList) -> dict[str, dict[str, str]]:
        """All maps, by file. To be called after take(). Raises Refusal (bad_request) for names that can't be in one."""
        texts = {"served": shown(", ".join(sorted(self._by_model(new))) or "none")}
        tokens: dict[str, str] = {}
        for config in new.pools:
            pool = self._ids[config.name]
            hosts = [b for b in new.backends if b.pool == config.name]
            texts[pool] = shown(config.name)
            texts[f"{pool}.hosts"] = (
                f"has {len(hosts)} hosts and none of them may take a request" if hosts else "has no host"
            )
            for backend in hosts:
                if backend.token is not None:
                    where = self.slots[pool].place_of(host_of(backend)) if pool in self._hops else pool
                    tokens[where] = f"Bearer {backend.token}"
        try:
            models = {
                name: ids[0] if len(ids) == 1 else _group(ids) for name, ids in self._by_model(new).items()
            }
            return {
                MODELS: checked(models, "model"),
                TEXTS: checked(texts, "pool"),
                TOKENS: checked(tokens, "the token of"),
                **key_maps(new.keys, {config.name: self._ids[config.name] for config in new.pools}),
            }
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from None

    def _pool(self, config: PoolConfig, new: BackendList, lenient: bool) -> PoolPlan:
        pool = self._ids[config.name]
        hosts = [b for b in new.backends if b.pool == config.name]
        return PoolPlan(
            id=pool,
            config=config,
            places=self.slots[pool].size_for(host_of(b) for b in hosts),
            # Once it hops it goes on so: who comes and goes should not change the configuration.
            hops=pool in self._hops or len({b.token for b in hosts}) > 1,
            lenient=lenient and bool(hosts),
        )

    def _by_model(self, new: BackendList) -> dict[str, tuple[str, ...]]:
        by_model: dict[str, tuple[str, ...]] = {}
        for config in new.pools:
            for model in config.models:
                by_model[model.name] = (*by_model.get(model.name, ()), self._ids[config.name])
        return by_model


def _group(ids: tuple[str, ...]) -> str:
    return "g-" + "-".join(ids)


def _refuse_unfit(new: BackendList) -> None:
    for config in new.pools:
        for unfit, why in (
            (config.hedge, "hedge: true; HAProxy sends no request twice at a time"),
            (config.tenant_header is not None, "tenant_header; HAProxy's queue is not fair among tenants"),
            (config.panic_share > 0, "panic_share; HAProxy never uses a host that fails its checks"),
        ):
            if unfit:
                raise Refusal(
                    "bad_request",
                    f"pool {config.name}: engine haproxy can't do {why}. Take it out, or use engine builtin",
                )
        try:
            header_name(config.session_header)
        except ValueError as error:
            raise Refusal("bad_request", f"pool {config.name}: session_header {error}") from None
    for key in new.keys or ():
        if key.share != 1.0:
            raise Refusal(
                "bad_request",
                f"key {key.name}: engine haproxy can't do share; HAProxy's queue is not fair among keys. Take it out, "
                f"or use engine builtin",
            )
