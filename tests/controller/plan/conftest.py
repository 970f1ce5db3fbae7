"""Pools as plan sees them, written in one line a host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fleet_controller.lifecycle import STARTING_UP, HostState
from fleet_controller.plan import PoolView
from fleet_controller.records import HostRecord
from fleet_controller.spec import HostSpec

NOW = 1_790_000_000.0
OLD, NEW = "release-1", "release-2"
RUNNING = frozenset({HostState.READY, HostState.DRAINING, HostState.LOADING})


@pytest.fixture
def now() -> float:
    return NOW


@pytest.fixture
def pool() -> Callable[..., PoolView]:
    """pool({"a": "ready", "b": {"state": "off", "price": 2.0}}, desired=2): what plan looks at."""

    def make(hosts: dict[str, str | dict[str, Any]], desired: int = 1, **view: Any) -> PoolView:
        specs, records = [], {}
        for name, said in hosts.items():
            known: dict[str, Any] = {"state": said} if isinstance(said, str) else dict(said)
            price, protect = known.pop("price", None), known.pop("protect", False)
            specs.append(
                HostSpec.model_validate(
                    {"name": name, "address": "local", "price_per_hour": price, "protect": protect}
                )
            )
            state = HostState(known.pop("state"))
            known.setdefault("release", NEW if state in RUNNING else None)
            records[name] = HostRecord(name, pool="default", state=state, **known)
        # a host that starts has an open action, unless the test says otherwise
        view.setdefault("busy", frozenset(n for n, r in records.items() if r.state in STARTING_UP))
        return PoolView("default", tuple(specs), records, desired, "the decision", NEW, **view)

    return make
