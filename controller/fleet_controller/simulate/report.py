"""What came of it: the promise kept, and what that cost."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Turn(BaseModel):
    """A decision that changed the number wanted. `at` is seconds from the start of the trace."""

    model_config = ConfigDict(frozen=True)

    at: float
    servers: int
    reason: str


class Oracle(BaseModel):
    """The fewest server-hours that keep `share` of the requests within the target, for one who knows what comes."""

    model_config = ConfigDict(frozen=True)

    share: float
    within_target: float
    server_hours: float
    cost: float | None
    peak_servers: int


class Report(BaseModel):
    """One simulated run, from the first row of the trace to its end or the last answer, whichever is later.
    Latencies in milliseconds, from arrival to answer; percentiles within 1 %.

    `within_target` is the share of all requests answered within the target, those never answered included
    as late; None without a target. `server_hours` counts each host from its start (also while it is
    starting) to its end, `static_server_hours` what the largest number wanted at any time would have cost
    throughout. `cost` and `static_cost` are these times the hosts' prices; None without prices. `oracle` is what
    somebody who knows every arrival could have done with. `direction_changes` counts ups after downs and
    downs after ups, `quick_turns` those that came within 5 minutes.
    """

    model_config = ConfigDict(frozen=True)

    seconds: float
    requests: int
    completed: int
    mean_wait_ms: float | None
    latency_ms: dict[str, float | None]
    longest_ms: float | None
    target_ms: float | None
    within_target: float | None
    server_hours: float
    static_server_hours: float
    peak_servers: int
    scale_ups: int
    scale_downs: int
    direction_changes: int
    quick_turns: int = 0
    cost: float | None = None
    static_cost: float | None = None
    oracle: Oracle | None = None
    turns: tuple[Turn, ...]
