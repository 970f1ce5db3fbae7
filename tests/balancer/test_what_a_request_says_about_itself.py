"""The Ask of a request: made only where something in it matters, from the headers that its pool names."""

from __future__ import annotations

from typing import Any

import pytest

from fleet_balancer.access.keys import KeyUse
from fleet_balancer.asking import ask_of, asking_for
from fleet_balancer.http.grammar import Limits
from fleet_balancer.http.request import RequestHead, parse_request
from fleet_wire.balancer import PoolConfig


def head_of(**fields: str) -> RequestHead:
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    head = parse_request(f"GET /x HTTP/1.1\r\nHost: a\r\n{lines}\r\n".encode(), Limits())
    assert head is not None
    return head


ALL = {"X_Tenant": "acme", "X_Session_ID": "s-1", "X_Other": "o"}


@pytest.mark.parametrize(
    ("pool", "fields", "tenant", "session", "priority"),
    [
        ({"tenant_header": "X-Tenant"}, ALL, "acme", None, 0),
        ({"tenant_header": "x-other"}, {"x_OTHER": "  o  "}, "o", None, 0),
        ({"routing": "consistent_hash"}, ALL, None, b"s-1", 0),
        ({"routing": "consistent_hash", "session_header": "X-Other"}, ALL, None, b"o", 0),
        ({}, {"X_Fleet_Priority": "7"}, None, None, 7),
        ({}, {"X_Fleet_Priority": "99"}, None, None, 9),
    ],
)
def test_what_its_pool_looks_at(
    pool: Any, fields: dict[str, str], tenant: str | None, session: bytes | None, priority: int
) -> None:
    ask = ask_of(head_of(**fields), asking_for(PoolConfig(**pool)), None, None)
    assert ask is not None
    assert (ask.tenant, ask.session, ask.priority, ask.key) == (tenant, session, priority, None)


def test_a_request_that_says_nothing_has_none_and_a_pool_that_looks_at_nothing_costs_nothing() -> None:
    assert asking_for(PoolConfig()) is None
    assert ask_of(head_of(**ALL), None, None, None) is None
    assert ask_of(head_of(X_Other="o"), asking_for(PoolConfig(tenant_header="x-tenant")), None, None) is None
    assert ask_of(head_of(X_Tenant=""), asking_for(PoolConfig(tenant_header="x-tenant")), None, None) is None


def test_the_key_is_the_tenant_whatever_a_header_says() -> None:
    ask = ask_of(
        head_of(**ALL),
        asking_for(PoolConfig(tenant_header="x-tenant")),
        KeyUse("alice", 2.0),
        "3",
    )
    assert ask is not None
    assert (ask.tenant, ask.key, ask.share, ask.version) == ("alice", "alice", 2.0, "3")


def test_what_may_be_sent_twice_is_declared_by_the_pool_or_by_the_request() -> None:
    asking = asking_for(PoolConfig(retry="idempotent"))
    assert asking is not None and asking.repeats and not asking.hedges
    asking = asking_for(PoolConfig(hedge=True))
    assert asking is not None and asking.hedges and not asking.repeats
    assert head_of(Idempotency_Key="1").idempotent and not head_of(X_Other="1").idempotent
