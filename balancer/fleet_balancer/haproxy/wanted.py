"""What each place of HAProxy should hold, and the runtime commands that make it so. PURE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The heaviest host's weight; HAProxy takes 0 to 256.
HEAVIEST = 128
Admin = Literal["ready", "drain", "maint"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One place. `ip` and `port` None: nobody stands there. `most`: requests at once, 0 for no bound.

    `healthy`: what is known of the host's health where it is new to this HAProxy; checks then decide.
    """

    ip: str | None = None
    port: int = 0
    admin: Admin = "maint"
    weight: int = 0
    most: int = 0
    healthy: bool = False


EMPTY = Wanted()


def weights(shares: dict[str, float]) -> dict[str, int]:
    """Whole numbers in the proportion of `shares`; a share of 0 stays 0, every other is at least 1."""
    top = max(shares.values(), default=0.0)
    if top <= 0:
        return dict.fromkeys(shares, 0)
    return {name: max(1, round(HEAVIEST * s / top)) if s > 0 else 0 for name, s in shares.items()}


def commands(pool: str, place: str, now: Wanted, then: Wanted, *, hops: bool) -> list[str]:
    """What brings one place from `now` to `then`."""
    server = f"{pool}/{place}"
    if then.ip is None:
        if now.ip is None:
            return []
        said = [f"set server {server} state maint"]
        return said + ([f"set server {place}/host state maint"] if hops else [])
    said = []
    moved = (now.ip, now.port) != (then.ip, then.port)
    if moved:
        # Weight 0 until its health is known: HAProxy takes a server that comes out of maintenance for healthy.
        said += [f"set server {server} state maint", f"set server {server} weight 0"]
        if hops:
            said += [
                f"set server {place}/host addr {then.ip} port {then.port}",
                f"set server {place}/host state ready",
                f"set server {server} check-addr {then.ip} port {then.port}",
            ]
        else:
            said.append(f"set server {server} addr {then.ip} port {then.port}")
    if moved or now.most != then.most:
        said.append(f"set maxconn server {server} {then.most}")
    if moved or now.admin != then.admin:
        said.append(f"set server {server} state {then.admin}")
    if moved:
        said.append(f"set server {server} health {'up' if then.healthy else 'down'}")
    if moved or now.weight != then.weight:
        said.append(f"set server {server} weight {then.weight}")
    return said
