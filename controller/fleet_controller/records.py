"""What is remembered of each host, pool, action and event: the nouns of the state store, free of SQL."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from fleet_controller.lifecycle import QUARANTINE_AFTER, HostState, Quarantine

ActionKind = Literal["start", "stop"]

# In place of `action_id`: whether an agent of ours runs there is not known, for the state store was lost.
UNKNOWN_ACTION = "?"


@dataclass(frozen=True)
class HostRecord:
    """One host as last known. Times are Unix seconds.

    `action_id` names the start that made the agent now running there; `agent_port` is where it listens.
    `failures` counts failed starts and crashes in a row; no retry happens before `retry_at`.
    `startup_s` is how long the last start took until ready, `boot_s` how long the machine took of that, from being
    switched on until it answered. A start that found it switched on counts as if it had booted as long as before.
    `cordoned`: an operator took it out. `unproven`: its `error` is that it is not proven to be free.
    """

    name: str
    pool: str | None = None
    state: HostState = HostState.OFF
    since: float = 0.0
    reason: str = ""
    action_id: str | None = None
    agent_port: int | None = None
    release: str | None = None
    error: str | None = None
    failures: int = 0
    retry_at: float = 0.0
    startup_s: float | None = None
    cordoned: bool = False
    boot_s: float | None = None
    unproven: bool = False

    def leaves(self, goal: str) -> bool:
        """It is to be stopped, whatever its pool needs: an operator took it out, or the fleet's `goal` is "down"."""
        return self.cordoned or goal == "down"

    @property
    def quarantine(self) -> Quarantine | None:
        """Why it is left alone; None: it is not, or an operator ended that."""
        if self.state is not HostState.FAILED or self.failures < QUARANTINE_AFTER:
            return None
        return Quarantine.UNPROVEN if self.unproven else Quarantine.FAILURES


@dataclass(frozen=True)
class PoolRecord:
    """`policy_state` and `learned` are PolicyState and Learned as JSON; `last_decision` a Decision and its time.

    `why` is the sentence with which `desired` became what it is.
    """

    name: str
    desired: int | None = None
    why: str = ""
    paused: bool = False
    policy_state: dict[str, Any] = field(default_factory=dict)
    learned: dict[str, Any] = field(default_factory=dict)
    last_decision: dict[str, Any] | None = None


@dataclass(frozen=True)
class Action:
    """A write-ahead intent: recorded before the effect, closed after the effect was seen."""

    id: str
    host: str
    kind: ActionKind
    reason: str
    created_at: float


@dataclass(frozen=True)
class Event:
    """Something that happened, for people and for `fleetctl events`."""

    id: int
    at: float
    kind: str
    pool: str | None
    host: str | None
    reason: str
    data: dict[str, Any]


@dataclass(frozen=True)
class Request:
    """What an operator asked of the controller, in the order asked."""

    id: int
    kind: str
    args: dict[str, Any]
    at: float


@dataclass(frozen=True)
class KeyRecord:
    """An API key: whose it is and what it may do. `sha256` is the hex digest of the key, which is kept nowhere.

    `rate_per_s` and `burst` None: unbounded. `share` is its weight in the fair queue. `pools` empty: all.
    """

    name: str
    sha256: str
    created_at: float
    rate_per_s: float | None = None
    burst: int | None = None
    share: float = 1.0
    pools: tuple[str, ...] = ()


@dataclass(frozen=True)
class DecisionRecord:
    """A pool's decision that was taken at `at` and seen to hold until `until`, Unix seconds.

    `told`: desired, reason, winner, recommendations, blocked_by, bounds; and what led to it: signal, state, diagnosis.
    """

    pool: str
    at: float
    until: float
    told: dict[str, Any]


@dataclass(frozen=True)
class Mark:
    """Where a balancer's count of arrivals stood at `at` (Unix seconds). `source` names the process."""

    source: str
    arrivals: int
    at: float


@dataclass(frozen=True)
class Minute:
    """Requests that came in within the minute that starts at `at` (Unix seconds, a multiple of 60)."""

    at: int
    requests: int


@dataclass(frozen=True)
class Answer:
    """How a request went; `done` False while the controller has not come to it."""

    done: bool
    ok: bool
    message: str
