"""The nouns of a decision: what each policy wants, what is decided, and what has to be remembered until
the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from fleet_controller.policies.arrivals import Arrivals
from fleet_controller.policies.budget import Budget
from fleet_controller.policies.profile import Profile
from fleet_controller.window import Signal


class Recommendation(BaseModel):
    """What one policy wants and why. `desired` None: it has no opinion now, and the reason says why not."""

    model_config = ConfigDict(frozen=True)

    policy: str
    desired: int | None
    reason: str


class Bounds(BaseModel):
    """The least and the most servers that may run now. `source` names what set them, for the reason."""

    model_config = ConfigDict(frozen=True)

    low: int
    high: int
    low_source: str = "min_servers"
    high_source: str = "max_servers"
    schedule: str | None = None

    def clip(self, servers: int) -> int:
        return min(max(servers, self.low), self.high)


class Decision(BaseModel):
    """How many servers the pool should run, in one sentence a tired person can read, and how that came
    about.

    `winner` is the policy (or the bound) that set the number; None: nothing had anything to say.
    `blocked_by` lists what kept the number from where the policies want it.
    """

    model_config = ConfigDict(frozen=True)

    desired: int
    reason: str
    winner: str | None = None
    recommendations: tuple[Recommendation, ...] = ()
    blocked_by: tuple[str, ...] = ()
    bounds: Bounds = Bounds(low=0, high=0)

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> Decision:
        """Raises pydantic.ValidationError for anything that is not a Decision."""
        return cls.model_validate_json(text)


class PolicyState(BaseModel):
    """All that a pool's decisions remember; JSON both ways, so that a restart continues where it stopped.

    Times are Unix seconds. `operator` is the number that a person asked for, `held` since when a condition
    holds. `highs` and `lows` are the recommendations that can still be a maximum or a minimum of a
    stabilization window, `moves` the changes that a limit still counts, `panic_at` when a surge was last seen.
    `arrivals` is what came in, `profile` what a server can carry, `budget` what was late.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    desired: int | None = None
    operator: int | None = None
    first_at: float | None = None
    last_at: float | None = None
    last_up_at: float | None = None
    last_down_at: float | None = None
    moves: tuple[tuple[float, int], ...] = ()
    panic_at: float | None = None
    held: dict[str, float] = {}
    highs: tuple[tuple[float, int], ...] = ()
    lows: tuple[tuple[float, int], ...] = ()
    idle_since: float | None = None
    arrivals: Arrivals | None = None
    profile: Profile | None = None
    budget: Budget | None = None

    def to_json(self) -> str:
        return self.model_dump_json()

    @classmethod
    def from_json(cls, text: str | bytes) -> PolicyState:
        """Raises pydantic.ValidationError for anything that is not a PolicyState."""
        return cls.model_validate_json(text)


@dataclass
class Timers:
    """How long each condition has held without a break. Made for one decision; `kept` goes into the next
    state.
    """

    now: float
    since: dict[str, float]
    kept: dict[str, float] = field(default_factory=dict)

    def held(self, key: str, holds: bool) -> float:
        """Seconds for which `key` has held until now; 0.0 when it holds for the first time, or doesn't."""
        if not holds:
            return 0.0
        start = min(self.since.get(key, self.now), self.now)
        self.kept[key] = start
        return self.now - start

    def keep(self, key: str) -> None:
        """Neither holds nor breaks: there is no evidence this time."""
        if key in self.since:
            self.kept[key] = self.since[key]


@dataclass(frozen=True)
class Look:
    """What a policy looks at: the signal, how many servers are wanted now (`current`), and the time."""

    signal: Signal
    current: int
    now: float
    timers: Timers

    @property
    def quiet(self) -> bool:
        """Known to have no traffic at all: nothing comes in, runs or waits."""
        return self._coming == 0 and not self.signal.in_flight and not self.signal.queued

    @property
    def busy(self) -> bool:
        """Known to have traffic."""
        return bool(self._coming or self.signal.in_flight or self.signal.queued)

    @property
    def _coming(self) -> float | None:
        arrivals = self.signal.arrivals_per_s
        return arrivals if arrivals is not None else self.signal.rps
