"""All pools and all backends: which pool a request belongs to, and the atomic swap of the whole list. PURE."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass

from fleet_balancer.access.keys import Keyring, new_slots
from fleet_balancer.member.health import HealthRule
from fleet_balancer.member.member import Member, address_of
from fleet_balancer.pool import Claim, Pool, Ticket
from fleet_wire.balancer import BackendList, PoolConfig
from fleet_wire.refusal import Refusal

# Where a path names its model: KServe V1 and Open Inference Protocol V2. Names are compared as they are written.
_PATH_MODEL = re.compile(
    rb"/v1/models/([^/:?]+)(?:/versions/([^/:?]+))?|/v2/models/([^/?]+)(?:/versions/([^/?]+))?|"
    rb"/v2/repository/models/([^/?]+)"
)
_BODY_MODEL = re.compile(rb"/v1/(?:embeddings|chat/completions|completions)(?:\?|$)")
# How long a body may be for its model to be looked up in it.
MAX_PEEK = 64 * 1024
# Routes are looked up once per target: at most this many, of at most this many bytes.
_ROUTES_KEPT = 4096
_TARGET_KEPT = 256


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes. `pool` None: only the body says which model, and that decides (see Front.route).

    `version`: only hosts where that version of the model is ready may take it; None: any.
    """

    pool: Pool | None
    model: str | None
    version: str | None = None


@dataclass(frozen=True)
class Swap:
    """What a new list changed: hosts to begin and to stop probing, and requests that stop waiting."""

    added: Sequence[Member]
    removed: Sequence[Member]
    served: Sequence[tuple[Ticket, Claim | Refusal]]


class Front:
    """The pools, by name in the order of the list. `rule` is how health is decided, `stale_s` when a report is old."""

    def __init__(self, rng: random.Random, rule: HealthRule, stale_s: float) -> None:
        self._rng = rng
        self._rule = rule
        self._stale_s = stale_s
        self.pools: dict[str, Pool] = {"default": Pool(PoolConfig(), rng, stale_s)}
        self.members: list[Member] = []
        self.unrouted = 0
        # None: no API key is asked for.
        self.keyring: Keyring | None = None
        # What each key has used of its rate, over every change of the list; set it to share it between processes.
        self.key_slots: MutableSequence[float] | None = None
        self.key_refusals: Counter[str] = Counter()
        self._routes: dict[bytes, Route] = {}
        self._learn()

    def swap(self, new: BackendList, now: float) -> Swap:
        """Make `new` the whole truth. Raises Refusal (bad_request) and changes nothing where it contradicts itself.

        A backend with the same name and address is the same process: its counts and health stay. The same name at
        another address is another process and starts from zero.
        """
        _check(new)
        keyring = self._keyring(new)
        known = {(m.name, m.address): m for m in self.members}
        members: list[Member] = []
        added: list[Member] = []
        for spec in new.backends:
            member = known.pop((spec.name, spec.address), None)
            if member is None:
                member = Member(spec, self._rule)
                added.append(member)
            members.append(member)
        for member, spec in zip(members, new.backends, strict=True):
            member.update(spec)
        gone = dict(self.pools)
        pools: dict[str, Pool] = {}
        for config in new.pools:
            pool = gone.pop(config.name, None)
            if pool is None:
                pool = Pool(config, self._rng, self._stale_s, new.zone)
            elif pool.config != config or pool.zone != new.zone:
                pool.zone = new.zone
                pool.configure(config)
            pools[config.name] = pool
        by_pool: dict[str, list[Member]] = {name: [] for name in pools}
        for member in members:
            by_pool[member.pool].append(member)
        for name, pool in pools.items():
            pool.replace(by_pool[name])
        self.members = members
        self.pools = pools
        self.keyring = keyring
        self._learn()
        served = [one for pool in gone.values() for one in pool.dismiss()]
        for pool in gone.values():
            pool.replace(())
        for pool in pools.values():
            served += pool.serve_waiting(now)
        return Swap(added, list(known.values()), served)

    def route(self, target: bytes, header_model: bytes | None, header_version: bytes | None = None) -> Route:
        """Where a request for `target` goes. Raises Refusal (not_found) for a model that no pool serves.

        What a header says wins over the path. A Route without a pool says: read the model in the body, then call
        route_body.
        """
        if header_model:
            version = header_version.decode("latin-1") if header_version else None
            return self.route_model(header_model.decode("latin-1"), version)
        route = self._routes.get(target)
        if route is None:
            route = self._route_path(target)
            # Among several pools the answer may change with their hosts' health: only a fixed one is kept.
            if (self._single or route.pool is None) and len(target) <= _TARGET_KEPT:
                if len(self._routes) >= _ROUTES_KEPT:
                    self._routes.clear()
                self._routes[target] = route
        if header_version:
            return Route(route.pool, route.model, header_version.decode("latin-1"))
        return route

    def route_model(self, model: str, version: str | None = None) -> Route:
        """The pool that serves `model`; of several, the first that has a usable host. Raises Refusal (not_found)."""
        pools = self._by_model.get(model) or self._open
        if not pools:
            self.unrouted += 1
            served = ", ".join(sorted(self._by_model)) or "none"
            raise Refusal("not_found", f"no pool serves model {model!r:.200}; models served: {served}")
        return Route(_first_usable(pools), model, version)

    def route_body(self, body: bytes, header_version: bytes | None = None) -> Route:
        """The pool for the `model` that a JSON body names. Raises Refusal where it names none, and that matters."""
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        model = document.get("model") if isinstance(document, dict) else None
        if isinstance(model, str) and model:
            return self.route_model(model, header_version.decode("latin-1") if header_version else None)
        return self.route_without_model()

    def route_without_model(self) -> Route:
        """Where a request goes whose body's model can't be read. Raises Refusal where several pools could be meant."""
        if len(self.pools) == 1:
            return Route(self._any_pool(), None)
        self.unrouted += 1
        raise Refusal(
            "bad_request",
            f"cannot tell which model this is for: name it in the header x-fleet-model, or as 'model' in a JSON body "
            f"with Content-Length of at most {MAX_PEEK} bytes",
        )

    def pool_of(self, member: Member) -> Pool | None:
        return self.pools.get(member.pool)

    def refresh(self, member: Member, now: float) -> list[tuple[Ticket, Claim | Refusal]]:
        """A member's health changed: who of the waiting can go now."""
        pool = self.pools.get(member.pool)
        if pool is None:
            return []
        pool.refresh(member, now)
        return pool.serve_waiting(now)

    def serve_waiting(self, now: float) -> list[tuple[Ticket, Claim | Refusal]]:
        return [one for pool in self.pools.values() if pool.waiting for one in pool.serve_waiting(now)]

    def _keyring(self, new: BackendList) -> Keyring | None:
        if new.keys is None:
            return None
        if self.key_slots is None:
            self.key_slots = new_slots()
        return Keyring(new.keys, self.key_slots, self.key_refusals)

    def _learn(self) -> None:
        by_model: dict[str, list[Pool]] = {}
        for pool in self.pools.values():
            for model in pool.config.models:
                by_model.setdefault(model.name, []).append(pool)
        self._by_model = by_model
        self._open = [pool for pool in self.pools.values() if not pool.config.models]
        self._single = len(self.pools) == 1
        # The body must be read only where the answer depends on it.
        self._body_matters = (
            not self._single
            or any(pool.needs for pool in self.pools.values())
            or any(member.models for member in self.members)
        )
        self._routes.clear()

    def _route_path(self, target: bytes) -> Route:
        if match := _PATH_MODEL.match(target):
            model = match[1] or match[3] or match[5]
            version = match[2] or match[4]
            return self.route_model(model.decode("latin-1"), version.decode("latin-1") if version else None)
        if self._body_matters and _BODY_MODEL.match(target):
            return Route(None, None)
        return Route(self._any_pool(), None)

    def _any_pool(self) -> Pool:
        if not self.pools:
            raise Refusal("unavailable", "the balancer has no pools", 1.0)
        return _first_usable(list(self.pools.values()))


def _first_usable(pools: Sequence[Pool]) -> Pool:
    """The first that has a usable host, else the first."""
    for pool in pools:
        if pool.usable:
            return pool
    return pools[0]


def _check(new: BackendList) -> None:
    names: set[str] = set()
    pools: set[str] = set()
    addresses: dict[tuple[str, str, int], str] = {}
    for config in new.pools:
        if config.name in pools:
            raise Refusal("bad_request", f"pool {config.name} is listed twice")
        pools.add(config.name)
    for spec in new.backends:
        if spec.name in names:
            raise Refusal("bad_request", f"backend {spec.name} is listed twice")
        names.add(spec.name)
        if spec.pool not in pools:
            raise Refusal("bad_request", f"backend {spec.name}: there is no pool {spec.pool}")
        if spec.token is not None and not re.fullmatch(r"[\x21-\x7e]+", spec.token):
            raise Refusal(
                "bad_request", f"backend {spec.name}: its token holds white space or a control character"
            )
        try:
            address = address_of(spec.address)
        except ValueError as error:
            raise Refusal("bad_request", f"backend {spec.name}: address {error}") from None
        other = addresses.setdefault((spec.pool, *address), spec.name)
        if other != spec.name:
            raise Refusal(
                "bad_request", f"backends {other} and {spec.name} of pool {spec.pool} have the same address"
            )
