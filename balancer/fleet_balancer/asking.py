"""What a pool wants to know of a request, and what a request says about itself: its Ask. PURE.

Looked at only where it matters: a pool that is not asked to share fairly, to keep sessions or to send again has no
Asking, and a request that sets nothing has no Ask.
"""

from __future__ import annotations

import re

from fleet_balancer.access.keys import KeyUse
from fleet_balancer.ask import Ask, priority_of
from fleet_balancer.http.request import RequestHead
from fleet_wire.balancer import PoolConfig


class Asking:
    """`tenant` and `session` find those headers' values in a head; None: not looked at. `repeats`: every request of the
    pool was declared idempotent. `hedges`: requests that may be sent twice are, when they take long."""

    __slots__ = ("hedges", "repeats", "session", "tenant")

    def __init__(self, config: PoolConfig) -> None:
        self.tenant = None if config.tenant_header is None else _finder(config.tenant_header)
        self.session = _finder(config.session_header) if config.routing == "consistent_hash" else None
        self.repeats = config.retry == "idempotent"
        self.hedges = config.hedge


def asking_for(config: PoolConfig) -> Asking | None:
    """None where nothing in a request's head matters to the pool."""
    asks = config.tenant_header is not None or config.routing == "consistent_hash"
    return Asking(config) if asks or config.retry == "idempotent" or config.hedge else None


def ask_of(head: RequestHead, asking: Asking | None, use: KeyUse | None, version: str | None) -> Ask | None:
    """What `head` says about itself; None where it says nothing. An API key's name counts before a tenant header."""
    tenant = session = None
    if asking is not None:
        if asking.tenant is not None and use is None and (found := asking.tenant.search(head.kept)):
            tenant = found[1].decode("latin-1")
        if asking.session is not None and (found := asking.session.search(head.kept)):
            session = found[1]
    priority = 0 if head.priority is None else priority_of(head.priority)
    if use is not None:
        return Ask(use.name, priority, session, use.name, use.share, version)
    if tenant is None and session is None and not priority and version is None:
        return None
    return Ask(tenant, priority, session, None, 1.0, version)


def _finder(name: str) -> re.Pattern[bytes]:
    return re.compile(
        rb"\r\n" + re.escape(name.lower().encode()) + rb":[ \t]*([^\r]*[^\r \t])", re.IGNORECASE
    )
