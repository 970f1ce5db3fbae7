"""API keys as they are made: 256 random bits, shown once; what is kept is their digest."""

from __future__ import annotations

import hashlib
import secrets

from fleet_controller.records import KeyRecord

# Tells people and secret scanners what it is.
PREFIX = "fleet-"


def mint(
    name: str,
    now: float,
    rate_per_s: float | None = None,
    burst: int | None = None,
    share: float = 1.0,
    pools: tuple[str, ...] = (),
) -> tuple[str, KeyRecord]:
    """A new key, and what is kept of it. `now`: Unix seconds; the rest: see KeyRecord."""
    key = PREFIX + secrets.token_urlsafe(32)
    return key, KeyRecord(
        name, hashlib.sha256(key.encode()).hexdigest(), now, rate_per_s, burst, share, pools
    )
