"""How the hosts are, as one process tells the next, and the state file. PURE."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

from fleet_balancer.failure.ejection import EjectedHost


class SavedEjection(BaseModel):
    """EjectedHost, as it is written."""

    model_config = ConfigDict(extra="forbid")

    name: str
    address: str
    state: Literal["closed", "open", "half_open"]
    left_s: float
    times: int
    reason: str

    @classmethod
    def of(cls, host: EjectedHost) -> SavedEjection:
        return cls(**host)

    def host(self) -> EjectedHost:
        return EjectedHost(
            name=self.name,
            address=self.address,
            state=self.state,
            left_s=self.left_s,
            times=self.times,
            reason=self.reason,
        )


class Condition(BaseModel):
    """How the hosts are: the keys (see host_key) of those that are healthy, and each pool's ejections.

    The file has ejections only: who was healthy need not be any more, and the first probes are as good as at once.
    """

    model_config = ConfigDict(extra="forbid")

    healthy: list[str] = []
    ejections: dict[str, list[SavedEjection]] = {}
