"""Whether a host gets on with what it has. PURE.

A host that answers one request, or one batch, every round_s seconds and has answered none for several times as long is
at a large request, or hangs. The more it is overdue, the longer it is likely to take (sizes are heavy-tailed).
"""

from __future__ import annotations

from fleet_balancer.member.member import Member

# Rounds without an answer that are nothing unusual.
USUAL = 2.0
# How many stuck hosts one pick passes over.
LOOKS = 3
MEMORY = 32
# Answers closer than this came together.
TOGETHER_S = 0.0002


def progressed(member: Member, now: float) -> None:
    """The host answered."""
    took = now - member.progress_at
    member.progress_at = now
    member.stuck = 0.0
    if not member.each_s:
        member.each_s = member.round_s = took
        return
    member.each_s += (took - member.each_s) / MEMORY
    if took > TOGETHER_S:
        member.round_s += (took - member.round_s) / MEMORY


def overdue(member: Member, now: float) -> float:
    """How many requests it would usually have answered since its last answer; 0 while that is not long ago."""
    since = now - member.progress_at
    if since <= USUAL * member.round_s or not member.each_s:
        return 0.0
    return since / member.each_s
