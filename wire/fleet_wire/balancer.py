"""What the controller tells the balancer (BackendList) and what the balancer reports (BalancerStatus)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet_wire.agent import DeviceMemory
from fleet_wire.histogram import HistogramWire

BackendState = Literal["active", "draining"]
Routing = Literal["least_connections", "gpu_memory", "round_robin", "power_of_two"]


class Backend(BaseModel):
    """One agent that may get requests. `address` is "HOST:PORT"; `token` is what the agent wants as a bearer token.

    A draining backend finishes what it has and gets nothing new.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    pool: str = "default"
    address: str
    state: BackendState = "active"
    weight: float = Field(default=1.0, gt=0)
    token: str | None = Field(default=None, repr=False)


class ModelNeed(BaseModel):
    """A model that a pool serves and the device memory that it must find on a host (None: nothing declared)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    device_memory_bytes: int | None = Field(default=None, ge=0)


class PoolConfig(BaseModel):
    """How requests of one pool are routed. `models` empty: the pool takes any model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "default"
    models: list[ModelNeed] = []
    routing: Routing = "least_connections"
    queue_size: int = Field(default=1024, ge=0)
    queue_timeout_s: float = Field(default=30.0, ge=0)
    request_timeout_s: float = Field(default=300.0, gt=0)


class BackendList(BaseModel):
    """`PUT /backends`: the whole truth, swapped in atomically; requests in flight finish where they are."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["fleetctl/backends/v1"] = Field(default="fleetctl/backends/v1", alias="schema")
    pools: list[PoolConfig]
    backends: list[Backend]


class BackendStatus(BaseModel):
    """One backend as the balancer sees it. `report_age_s`: age of the last memory report; None: never had one."""

    name: str
    pool: str
    address: str
    state: BackendState
    healthy: bool
    in_flight: int
    requests: int
    errors: int
    error: str | None = None
    report_age_s: float | None = None
    device_memory: DeviceMemory = DeviceMemory()


class PoolStatus(BaseModel):
    """One pool's traffic since the balancer's `started_at`; the reader subtracts two reports.

    `arrivals` counts every request, `completed` those answered below 500 by a host, `errors` those answered with 5xx
    by a host or broken off, `refused` those that the balancer itself turned away, `abandoned` those whose client left
    before the reply was complete: arrivals = completed + errors + refused + abandoned + in_flight + queued.
    `latency` covers `completed`, from the request's first byte to the reply's last, in milliseconds.
    """

    name: str
    arrivals: int
    completed: int
    errors: int
    refused: int
    abandoned: int = 0
    in_flight: int
    queued: int
    latency: HistogramWire


class BalancerStatus(BaseModel):
    """`GET /status` of the balancer."""

    schema_: Literal["fleetctl/balancer-status/v1"] = Field(
        default="fleetctl/balancer-status/v1", alias="schema"
    )
    pid: int
    started_at: float
    at: float
    endpoint: str
    pools: list[PoolStatus]
    backends: list[BackendStatus]

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
