"""What hosts say about themselves, set against what was sent there since. PURE.

The balancer's own count of requests in flight is always true; a report is as old as its way here. So a report only
corrects: it adds what other clients have in flight there, and says how much device memory is free. What was placed
since the report is taken off that memory, until a report shows it. A report that is too old is ignored (Picker).
"""

from __future__ import annotations

from fleet_balancer.member.member import Member, MemoryReport

# Below this share of free device memory a host counts as more loaded; with none free, FULL_PENALTY times as loaded.
# It is a ramp and never an exclusion: unknown memory costs nothing, and where all are full all count the same.
SCARCE_SHARE = 0.25
FULL_PENALTY = 4.0
# The penalty moves in steps, so that hosts about as full as each other take turns.
STEPS = 16


def foreign_load(member: Member) -> int:
    """Requests that others than this balancer had in flight there, by the last report.

    Requests come and go while a host is asked: a difference that this explains is none.
    """
    report = member.fresh
    if report is None or report.busy is None:
        return 0
    more = report.busy - report.own
    return more if more > 2 + report.own // 4 else 0


def lacking(member: Member, needs: dict[str, int], stale_s: float) -> frozenset[str]:
    """The models of `needs` that are known to find too little memory on this host."""
    report = member.fresh
    if report is None or report.used is None or not report.total:
        return frozenset()
    return frozenset(model for model, need in needs.items() if _room(member, report, model, stale_s) < need)


def credited(member: Member, model: str, needs: dict[str, int], now: float) -> bool:
    """Note that a request for `model` went to `member`; True where that takes memory that no report shows yet."""
    need = needs.get(model)
    report = member.fresh
    if need is None or report is None or report.used is None or report.held.get(model, 0) >= need:
        return False
    if member.placed is None:
        member.placed = {}
    if model in member.placed:
        return False
    member.placed[model] = (now, need)
    return True


def take_report(member: Member, report: MemoryReport | None) -> None:
    """Take over a report. A model that holds there what it needs is accounted for by it."""
    member.report = report
    if member.placed and report is not None:
        member.placed = {
            model: (at, need)
            for model, (at, need) in member.placed.items()
            if report.held.get(model, 0) < need
        }


def scarcity(member: Member, stale_s: float) -> float:
    """1 while a quarter of the memory is free or nothing is known, rising to FULL_PENALTY with none free."""
    free = 1.0
    report = member.fresh
    if report is not None and report.used is not None and report.total:
        used = report.used + (_placed(member, report, None, stale_s) if member.placed else 0)
        free = 1.0 - used / report.total
    inline = member.inline
    if inline is not None and inline.memory is not None:
        free = min(free, 1.0 - inline.memory)
    if free >= SCARCE_SHARE:
        return 1.0
    short = 1.0 - max(0.0, free) / SCARCE_SHARE
    return 1.0 + (FULL_PENALTY - 1.0) * int(short * STEPS + 1e-6) / STEPS


def _room(member: Member, report: MemoryReport, model: str, stale_s: float) -> int:
    room = report.room_for(model)
    if room is None:
        raise AssertionError("only asked where memory is known")
    return room - (_placed(member, report, model, stale_s) if member.placed else 0)


def _placed(member: Member, report: MemoryReport, but: str | None, stale_s: float) -> int:
    """Bytes that models placed there still lack, `but` one of them. A host that loads a model may take a while to
    show it: a placement counts until the model holds what it needs, or a report comes `stale_s` after it."""
    return sum(
        need - report.held.get(model, 0)
        for model, (at, need) in (member.placed or {}).items()
        if model != but and report.at < at + stale_s
    )
