"""What the controller tells the balancer (BackendList) and what the balancer reports (BalancerStatus)."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from fleet_wire.agent import DeviceMemory
from fleet_wire.histogram import HistogramWire

BackendState = Literal["active", "draining"]
Routing = Literal[
    "least_connections",
    "gpu_memory",
    "response_time",
    "power_of_two",
    "round_robin",
    "weighted",
    "consistent_hash",
]
Engine = Literal["builtin", "haproxy"]
# Which requests may be sent a second time after their first bytes went out. declared: GET, HEAD and those with an
# Idempotency-Key. idempotent: the pool's owner declares all of its requests so.
Retry = Literal["declared", "idempotent"]


class Backend(BaseModel):
    """One agent that may get requests. `address` is "HOST:PORT"; `token` is what the agent wants as a bearer token.

    A draining backend finishes what it has and gets nothing new. `models` maps a model's name to the version that is
    ready there; empty: not known, any request may go there. `capacity_rps`: requests/s that it was seen to answer
    within the pool's latency target. `max_in_flight`: requests at once, None: as the pool says.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    pool: str = "default"
    address: str
    state: BackendState = "active"
    weight: float = Field(default=1.0, gt=0)
    token: str | None = Field(default=None, repr=False)
    zone: str | None = None
    models: dict[str, str] = {}
    capacity_rps: float | None = Field(default=None, gt=0)
    max_in_flight: int | None = Field(default=None, ge=1)


class ModelNeed(BaseModel):
    """A model that a pool serves and the device memory that it must find on a host (None: nothing declared)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    device_memory_bytes: int | None = Field(default=None, ge=0)


class Ejection(BaseModel):
    """When a host that passes its probes is taken out all the same, for `base_s` x how often in a row, seconds.

    After `consecutive_5xx` answers of 500 and above in a row, or while its latency is more than `latency_factor` times
    that of the pool's median host (None: never for latency). At most `max_share` of the pool's hosts at once.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    enabled: bool = True
    consecutive_5xx: int = Field(default=5, ge=1)
    latency_factor: float | None = Field(default=5.0, gt=1)
    base_s: float = Field(default=30.0, gt=0)
    max_share: float = Field(default=0.5, ge=0, le=1)


class PoolConfig(BaseModel):
    """How requests of one pool are routed. `models` empty: the pool takes any model.

    `max_in_flight_per_server`: requests at once on one host, the others wait in the queue; None: no bound.
    `tenant_header` names the header whose value is the tenant with whom the queue shares fairly; with API keys the
    key's name is the tenant. `session_header` is what consistent_hash looks at. `slow_start_s`: seconds over which a
    host that has just become healthy grows to its full share. `panic_share`: where fewer than this share of the hosts
    is healthy, health is ignored. `hedge`: a request that may be sent twice is, once it has taken longer than the
    pool's p95.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "default"
    models: list[ModelNeed] = []
    routing: Routing = "least_connections"
    queue_size: int = Field(default=1024, ge=0)
    queue_timeout_s: float = Field(default=30.0, ge=0)
    request_timeout_s: float = Field(default=300.0, gt=0)
    max_in_flight_per_server: int | None = Field(default=None, ge=1)
    retry: Retry = "declared"
    hedge: bool = False
    slow_start_s: float = Field(default=10.0, ge=0)
    panic_share: float = Field(default=0.0, ge=0, le=1)
    ejection: Ejection = Ejection()
    session_header: str = "x-session-id"
    tenant_header: str | None = None


class ApiKey(BaseModel):
    """Who may send requests. `sha256`: hex digest of the key, which is 256 random bits (so no salt and no stretching).

    `rate_per_s` and `burst` bound its requests (None: unbounded), `share` is its weight in the fair queue, `pools`
    the pools it may use (empty: all).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    rate_per_s: float | None = Field(default=None, gt=0)
    burst: int | None = Field(default=None, ge=1)
    share: float = Field(default=1.0, gt=0)
    pools: list[str] = []


class BackendList(BaseModel):
    """`PUT /backends`: the whole truth, swapped in atomically; requests in flight finish where they are.

    `keys` None: no API key is asked for; an empty list: nobody may come in. `zone` is where the balancer stands.
    """

    model_config = ConfigDict(extra="forbid", populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["fleetctl/backends/v1"] = Field(default="fleetctl/backends/v1", alias="schema")
    pools: list[PoolConfig]
    backends: list[Backend]
    keys: list[ApiKey] | None = None
    zone: str | None = None


class TlsFiles(BaseModel):
    """Paths of a PEM certificate chain and its key; read again when they change."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    certificate: str
    key: str


class AccessLog(BaseModel):
    """One JSON line a request in `path` ("-": stdout); `sample` is the share written, errors and refusals always."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str
    sample: float = Field(default=1.0, ge=0, le=1)


class BalancerLimits(BaseModel):
    """What a client may send (bytes, and header lines) and how long things may take (seconds)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    head_bytes: int = Field(default=32 * 1024, ge=1024)
    target_bytes: int = Field(default=16 * 1024, ge=256)
    fields: int = Field(default=100, ge=8)
    body_bytes: int = Field(default=8 * 1024**3, ge=0)
    header_timeout_s: float = Field(default=5.0, gt=0)
    body_timeout_s: float = Field(default=30.0, gt=0)
    idle_timeout_s: float = Field(default=60.0, gt=0)
    connect_timeout_s: float = Field(default=2.0, gt=0)


class BalancerConfig(BaseModel):
    """`fleet-balancer --config FILE`: what holds for the process; what changes while it runs is BackendList.

    SIGHUP reads the file again. `state_file` keeps the last list, drains and ejections over a crash.
    `keys_required`: requests that come before the first list are refused (503) instead of waiting for hosts, for it
    is the list that says which API keys are good.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, serialize_by_alias=True)

    schema_: Literal["fleetctl/balancer-config/v1"] = Field(
        default="fleetctl/balancer-config/v1", alias="schema"
    )
    listen: str = "127.0.0.1:8080"
    admin: str = "127.0.0.1:8081"
    engine: Engine = "builtin"
    workers: int = Field(default=1, ge=1, le=64)
    token_file: str | None = None
    state_file: str | None = None
    keys_required: bool = False
    tls: TlsFiles | None = None
    access_log: AccessLog | None = None
    limits: BalancerLimits = BalancerLimits()


class BackendStatus(BaseModel):
    """One backend as the balancer sees it. `report_age_s`: age of the last memory report; None: never had one.

    `ejected_s`: seconds until an ejected host is tried again; None: it is not ejected. `weight`: its share against
    the others', that is its weight by learned speed or capacity and slow start.
    """

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
    ejected_s: float | None = None
    weight: float = 1.0
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


class Figure(BaseModel):
    """One more number for `/metrics`, as `fleet_balancer_<name>`. Those of several processes are added up.

    `labels` come from the configuration, never from a client, so that there are not more of them than hosts, pools,
    models and keys. A counter only grows.
    """

    name: str
    kind: Literal["counter", "gauge"]
    help: str
    labels: dict[str, str] = {}
    value: float


class BalancerStatus(BaseModel):
    """`GET /status` of the balancer. `workers`: how many processes serve."""

    schema_: Literal["fleetctl/balancer-status/v1"] = Field(
        default="fleetctl/balancer-status/v1", alias="schema"
    )
    pid: int
    started_at: float
    at: float
    endpoint: str
    pools: list[PoolStatus]
    backends: list[BackendStatus]
    workers: int = 1
    figures: list[Figure] = []

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
