"""Starts servers before the load is there, and keeps those that it would soon start again.

What may come is a table of cases (analogs): the load may rise so far, with such a weight. Each number of servers has
a price: its own time, and that of the requests that would be late in the cases it cannot carry. The cheapest wins:
    cost(n) = n x load per server x seconds + price of a late request x sum(weight x load x seconds late)
Up looks at the minutes in which a server started now would first be ready, and counts only what is added, for as long
as it would have to stay. Down looks at all minutes until a server started again would be ready. A change has a price
too (CHANGE_S): what gains less stays as it is. Where bursts come so steeply, again and again, that they alone would
spend the allowance of late requests, being late for one counts several times: only what runs before helps there. A
sudden silence (an outage somewhere in front) is not taken for the end of the load, for as long as the last hour's
median remembers it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fleet_controller.policies import analogs, arrivals, profile
from fleet_controller.policies.analogs import Outlook
from fleet_controller.policies.arrivals import Arrivals
from fleet_controller.policies.budget import PRICE, SHARE, Budget
from fleet_controller.policies.decision import Look, Recommendation
from fleet_controller.policies.profile import FIRST_UTILIZATION, Profile
from fleet_controller.policies.words import number, servers, span
from fleet_controller.spec.scaling import ScalingSpec
from fleet_controller.window import Signal

DEFAULT_STARTUP_S = 60.0
NOTICE_S = 25.0  # from a surge to the first start: arrivals are a mean over 15 s, looks come every 5
SOON_S = 15.0  # from one start that is put off to the next chance
CHANGE_S = 180.0  # of one server's time: what a change of the number has to gain
STEEP_PRICE = 4.0
STAY_S = 300.0  # how long one that was started has to stay (cooldown scale_down)
# times the last minute's level: then it is the surge that counts, with a margin for its next seconds
SURGE = 1.25
BRIEFLY = 0.9  # of a rate over 15 s: the limit has room for that much over it, for so long
FALLEN = 0.35  # of the last hour's median
SURGE_MARGIN = 1.2
MOST_GROWTH = 1.65  # over what is now; or a little over the most that was ever seen
OVER_PAST = 1.05
LEAST_LEVEL = 0.01  # requests/s
PAST_NEEDED = 1440  # minutes, before the most that was seen says anything
HOPELESS_LATE = 0.02  # of the requests of about a day
HOPELESS_SUDDEN = 0.1  # of the load: came while a server started, from under half of it
NEW_MINUTES = 10
RESTLESS = 0.2  # of the load, that came faster than a server starts
PATIENT_MINUTES = 15
MIN_CAPACITY_RPS = 1e-6  # less than a request in a week is no measurement
MOST_SERVERS = 10_000


@dataclass(frozen=True)
class Capacity:
    """What n servers carry: `load` requests/s each; `pools`: corrected for how well many share their peaks."""

    load: float
    pools: bool = False

    def of(self, count: int) -> float:
        return profile.carried(self.load, count) if self.pools else count * self.load

    def servers(self, rate: float) -> int:
        """How many carry `rate`."""
        count = max(1, min(MOST_SERVERS, math.ceil(rate / self.load - 1e-9)))
        while count < MOST_SERVERS and self.of(count) < rate * (1 - 1e-9):
            count += 1
        return count


def capacity(spec: ScalingSpec, learned: Profile | None, signal: Signal) -> Capacity | None:
    """From the profile where there is a latency target, else from what a busy server completes; None: not known."""
    if spec.latency is not None:
        load = learned.load(spec.latency.target_ms) if learned else None
        return Capacity(load, pools=True) if load and load > MIN_CAPACITY_RPS else None
    known = signal.capacity_rps_per_server
    if not known or known < MIN_CAPACITY_RPS:
        return None
    return Capacity(known * (spec.target_utilization or FIRST_UTILIZATION))


def recommend(
    seen: Arrivals | None, can: Capacity | None, budget: Budget | None, look: Look, patient: bool = True
) -> Recommendation:
    """What the pool should run for what may come; where no scaling holds the target it says which floor would.

    `patient`: a new pool keeps what it has for some minutes, and one whose load jumps all the time what its last
    quarter of an hour needed.
    """
    wanted = _wanted(seen, can, budget, look, patient)
    if seen is None or can is None or budget is None or len(seen.minutes()) < NEW_MINUTES:
        return wanted
    startup = look.signal.startup_s or DEFAULT_STARTUP_S
    sudden = arrivals.sudden(seen.codes, _late_minutes(startup))
    if sudden <= (HOPELESS_SUDDEN if budget.share > HOPELESS_LATE else RESTLESS):
        return wanted
    floor = can.servers(max(seen.peak, arrivals.rate(arrivals.highest(seen.codes))))
    if floor == 1:
        return wanted
    late = f"{budget.share:.1%} were late, which scaling can't help: " if budget.share > HOPELESS_LATE else ""
    why = (
        f"{late}bursts rise faster than a server starts ({span(startup)}): {sudden:.0%} of the load came so; "
        f"min_servers {floor} would hold the target"
    )
    return wanted.model_copy(update={"reason": f"{wanted.reason}; {why}"})


def _late_minutes(startup_s: float) -> int:
    """From a rise to a server that was started for it, in minutes begun."""
    return math.ceil((startup_s + NOTICE_S) / arrivals.MINUTE_S)


def _wanted(
    seen: Arrivals | None, can: Capacity | None, budget: Budget | None, look: Look, patient: bool
) -> Recommendation:
    rate = look.signal.arrivals_per_s
    if seen is None or rate is None:
        return _say(None, "no forecast: arrivals are not known yet")
    if can is None:
        return _say(None, "no forecast: what one server can do is not learned yet")
    startup = look.signal.startup_s or DEFAULT_STARTUP_S
    price = budget.price if budget else PRICE
    past = seen.minutes()
    recent = max(rate, seen.peak)
    level = max(LEAST_LEVEL, arrivals.rate(past[-1]) if past else recent)
    surging = recent > SURGE * level
    needed = can.servers(recent * SURGE_MARGIN if surging else BRIEFLY * rate)
    most = recent * MOST_GROWTH
    if len(past) >= PAST_NEEDED:
        most = max(most, arrivals.rate(arrivals.highest(seen.codes)) * OVER_PAST)
    late_s = startup + NOTICE_S
    late_minutes = _late_minutes(startup)
    ready_s = look.now % arrivals.MINUTE_S + startup + 5.0
    ready_at = int(ready_s // arrivals.MINUTE_S)
    end = int((ready_s + SOON_S) // arrivals.MINUTE_S) + 1
    steep = STEEP_PRICE if arrivals.steep(seen, late_minutes) > SHARE else 1.0
    rising = analogs.outlook(seen.codes, ready_at, end, end + late_minutes, late_s, steep)
    coming = analogs.outlook(seen.codes, 0, end, end + late_minutes, late_s, steep)
    up = max(needed, _cheapest(rising, level, most, price, can, startup + STAY_S, look.current, look.current))
    if up > look.current:
        return _say(up, _why(up, needed, rate, recent, surging, startup))
    down = max(needed, _cheapest(coming, level, most, price, can, startup + 60.0, look.current, 0))
    if patient and len(past) < NEW_MINUTES:
        down = max(down, look.current)  # too little is known to let one go
    elif patient and down < look.current and arrivals.sudden(seen.codes, late_minutes) > RESTLESS:
        lately = max(recent, arrivals.rate(max(past[-PATIENT_MINUTES:])))
        down = max(down, min(look.current, can.servers(SURGE_MARGIN * lately)))
    usual = arrivals.usual(seen.codes)
    if rate < FALLEN * usual and can.servers(usual) > down:
        down = min(look.current, can.servers(usual))
        return _say(
            down,
            f"{number(rate)} requests/s after {number(usual)} in the last hour: {servers(down)} kept, it may come back",
        )
    if down < look.current:
        return _say(down, f"{number(rate)} requests/s, {servers(down)} can carry what may come")
    return _say(look.current, f"{number(rate)} requests/s, {servers(look.current)} can carry what may come")


def _cheapest(
    ahead: Outlook,
    level: float,
    most: float,
    price: float,
    can: Capacity,
    seconds: float,
    here: int,
    free: int,
) -> int:
    """The number of servers with the least cost; the first `free` cost nothing, and staying `here` saves a change."""
    best, least = 1, math.inf
    highest = min(most, level * ahead.factors[-1]) if ahead.factors else level
    for count in range(1, can.servers(highest) + 1):
        late = level * ahead.late(can.of(count) / level, most / level)
        cost = max(0, count - free) * can.load * seconds + price * late
        if count == here:
            cost -= can.load * CHANGE_S
        if cost < least - 1e-6:
            best, least = count, cost
    return best


def _why(up: int, needed: int, rate: float, recent: float, surging: bool, startup: float) -> str:
    if up <= needed and surging:
        return f"{number(recent)} requests/s and rising, {servers(up)} can carry them"
    if up <= needed:
        return f"{number(rate)} requests/s, {servers(up)} can carry them"
    ahead = span(startup)
    return f"{number(rate)} requests/s, {servers(up)} for what may come in {ahead}, when one started now is ready"


def _say(desired: int | None, reason: str) -> Recommendation:
    return Recommendation(policy="predictive", desired=desired, reason=reason)
