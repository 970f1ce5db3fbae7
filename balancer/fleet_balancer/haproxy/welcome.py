"""A new host is asked by us whether it is ready, for HAProxy looks at a new place only after an interval."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from fleet_balancer.member.member import Member
from fleet_balancer.probing.line import Line, ProbeFailed

# Between two questions.
PAUSE_S = 0.1


async def ready(
    member: Member, *, within_s: float, timeout_s: float, lenient: bool, over: Callable[[], bool]
) -> bool:
    """Whether it says so within `within_s`; why it does not is left in its health. `over`: nobody wants to know."""
    until = time.monotonic() + within_s
    line = Line(member)
    while time.monotonic() < until and not member.health.healthy and not over():
        try:
            status, _ = await line.get("/readyz", None, timeout_s)
            said = f"/readyz answered {status}"
        except ProbeFailed as failure:
            status, said = 599, str(failure)
        finally:
            line.close()
        if status == 200 or (lenient and status < 500):
            return True
        if not member.health.healthy:
            member.health.error = said
        await asyncio.sleep(PAUSE_S)
    return False
