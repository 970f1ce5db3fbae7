"""How a request on a host ended, and what that says about the host. PURE.

Two readers: the pool's counters (was the client served?) and the host's breaker (is the host at fault?). They differ:
a 503 with Retry-After is an error for the client, but the host is full and not broken; a deadline that the client
itself set too short is nobody's fault but the client's, and must not let it take hosts out.
"""

from __future__ import annotations

from typing import Literal

# Counted as completed:  completed  answered below 400
#                        rejected   answered 4xx, 429 too: says nothing about the host
# Counted as errors:     error      answered 5xx, broken off by the host, or no answer within the pool's time-out
#                        busy       answered 503 with Retry-After: the host is full or drains
#                        excused    501, 505, or the deadline that the client itself had set: not the host's fault
# Counted as themselves: refused    turned away by the balancer
#                        abandoned  the client left
# Not counted yet:       retry      placed again, no fault of this host: nothing was sent
#                        spare      the one of two claims of a request whose answer nobody needs (Pool.second_claim)
#                        resent     placed again because this host broke off, or answered 5xx
Outcome = Literal[
    "completed", "rejected", "error", "busy", "excused", "refused", "abandoned", "retry", "resent", "spare"
]


def outcome_of(status: int, *, retry_after: bool = False, own_deadline: bool = False) -> Outcome:
    """What a complete answer means. `retry_after`: it carries that header. `own_deadline`: the client set one.

    Callers on the hot path ask only from 400 on.
    """
    if status < 400:
        return "completed"
    if status < 500:
        return "rejected"
    if status == 503 and retry_after:
        return "busy"
    if status in (501, 505) or (status == 504 and own_deadline):
        return "excused"
    return "error"
