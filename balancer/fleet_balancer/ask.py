"""What a request says about itself beyond its target, where anybody has to know. PURE."""

from __future__ import annotations

PRIORITIES = range(10)


class Ask:
    """Made only for a request that sets one of these; all others pass None, which means: these defaults.

    `tenant`: with whom the queue shares fairly, the API key's name or the pool's tenant_header. `priority`: one of
    PRIORITIES, higher is served first (x-fleet-priority). `session`: what consistent_hash looks at. `key`: the API
    key's name. `share`: the tenant's weight against the other tenants that wait.
    `version`: of the model, None: any.
    """

    __slots__ = ("key", "priority", "session", "share", "tenant", "version")

    def __init__(
        self,
        tenant: str | None = None,
        priority: int = 0,
        session: bytes | None = None,
        key: str | None = None,
        share: float = 1.0,
        version: str | None = None,
    ) -> None:
        self.tenant = tenant
        self.priority = priority
        self.session = session
        self.key = key
        self.share = share
        self.version = version

    def __repr__(self) -> str:
        return f"<Ask tenant={self.tenant} priority={self.priority} session={self.session!r} key={self.key}>"


def priority_of(field: bytes) -> int:
    """x-fleet-priority as one of PRIORITIES. What is no whole number is 0, what lies outside is moved to the nearer
    end: a header that is only a wish is no reason to refuse a request."""
    try:
        value = int(field)
    except ValueError:
        return 0
    return min(max(value, PRIORITIES[0]), PRIORITIES[-1])
