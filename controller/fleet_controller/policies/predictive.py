"""Starts servers before the load is there: a forecast of arrivals at the moment when a server started now
is ready.

Holt's double exponential smoothing (level and trend; Holt 1957, Gardner 1985) with weights 1 - exp(-dt /
tau), so that ticks may come unevenly. desired = ceil(forecast(now + startup) / (capacity per server x
target utilization)). It only ever asks for more or consents to fewer; without a learned capacity, or while
its own forecasts of the last minutes were off by more than 30 %, it has no opinion and says so.
"""

from __future__ import annotations

import math

from fleet_controller.policies.decision import Forecast, Look, Recommendation
from fleet_controller.policies.words import number, servers, span

LEVEL_TAU_S = 30.0
TREND_TAU_S = 120.0
DEFAULT_STARTUP_S = 60.0
DEFAULT_UTILIZATION = 0.7
ERROR_TAU = 8.0  # checked forecasts
MAX_ERROR = 0.3
MAX_GROWTH = 3.0  # a trend is not believed to more than triple the load within one start
PENDING = 16
MIN_CAPACITY_RPS = 1e-6  # less than a request in a week is no measurement


def learn(
    state: Forecast | None, arrivals_per_s: float | None, horizon_s: float, now: float
) -> Forecast | None:
    """The forecast after one more look. A look without arrivals known, or a gap of 10 minutes, teaches
    nothing.
    """
    if arrivals_per_s is None:
        return state
    if state is None or not 0 <= now - state.at <= 600:
        return Forecast(at=now, level=arrivals_per_s)
    dt = now - state.at
    if dt == 0:
        return state
    error, checked = state.error, state.checked
    due = [value for at, value in state.pending if at <= now]
    for value in due:
        miss = abs(value - arrivals_per_s) / max(arrivals_per_s, value, 1.0)
        error = miss if error is None else error + (miss - error) / min(ERROR_TAU, checked + 1)
        checked += 1
    pending = [entry for entry in state.pending if entry[0] > now]
    alpha, beta = 1 - math.exp(-dt / LEVEL_TAU_S), 1 - math.exp(-dt / TREND_TAU_S)
    ahead = max(0.0, state.level + state.trend * dt)
    level = ahead + alpha * (arrivals_per_s - ahead)
    trend = state.trend + beta * ((level - state.level) / dt - state.trend)
    learned = Forecast(at=now, level=level, trend=trend, error=error, checked=checked)
    if not pending or now + horizon_s - pending[-1][0] >= horizon_s / PENDING:
        pending.append((now + horizon_s, at(learned, horizon_s)))
    return learned.model_copy(update={"pending": tuple(pending[-2 * PENDING :])})


def at(forecast: Forecast, seconds: float) -> float:
    """Arrivals per second that are expected `seconds` after the forecast's last look."""
    return min(max(0.0, forecast.level + forecast.trend * seconds), MAX_GROWTH * max(forecast.level, 1.0))


def recommend(forecast: Forecast | None, target_utilization: float | None, look: Look) -> Recommendation:
    capacity = look.signal.capacity_rps_per_server
    horizon = look.signal.startup_s or DEFAULT_STARTUP_S
    if forecast is None:
        return _say(None, "no forecast: arrivals are not known yet")
    if not capacity or capacity < MIN_CAPACITY_RPS:
        return _say(None, "no forecast: what one server can do is not learned yet")
    if forecast.error is not None and forecast.error > MAX_ERROR:
        return _say(None, f"no forecast: its last ones were off by {forecast.error:.0%}")
    expected = at(forecast, horizon)
    needed = math.ceil(expected / (capacity * (target_utilization or DEFAULT_UTILIZATION)) - 1e-9)
    reason = f"{number(expected)} requests/s expected in {span(horizon)}, {servers(needed)} can carry them"
    return _say(max(1, needed), reason)


def _say(desired: int | None, reason: str) -> Recommendation:
    return Recommendation(policy="predictive", desired=desired, reason=reason)
