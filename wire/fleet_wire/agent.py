"""What the controller tells an agent (AgentConfig) and what an agent tells about itself (AgentStatus)."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from fleet_wire.command import CommandConfig, EngineStatus
from fleet_wire.histogram import HistogramWire

AgentState = Literal["loading", "ready", "draining", "failed"]
ModelState = Literal["loading", "ready", "unloading", "failed"]


class WeightsFile(BaseModel):
    """A file of a model's weights, in its folder or by an absolute path; `sha256` in hexadecimal is what it must be.

    `trust_pickle`: it may be a pickle, which runs whatever code it holds when it is loaded.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    file: str
    sha256: str
    trust_pickle: bool = False


class TensorConfig(BaseModel):
    """An input or output in the words of the Open Inference Protocol; the first dimension is the batch (-1)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    datatype: str
    shape: list[int]


class ComputeConfig(BaseModel):
    """How a model computes. `compile` is torch.compile's mode; None everywhere: as the model's own code does it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Literal["float32", "float16", "bfloat16"] | None = None
    autocast: Literal["float16", "bfloat16"] | None = None
    compile: Literal["default", "reduce-overhead", "max-autotune"] | None = None
    channels_last: bool = False
    cuda_graphs: bool = False
    pinned_memory: bool = False


class ModelConfig(BaseModel):
    """One model to serve. `path` is its source folder on the host; `entrypoint` is "module:Class" in there.

    `format`: what the model is; `class` and `safetensors` have an entrypoint, the other two are a program, the one file
    of `weights`. `inputs` and `outputs` are for programs that don't tell them.

    `runtime` "command": an outside engine, which `command` starts; of the rest only the name, the version, the path,
    `max_queue_size` and `device_memory_bytes` count for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    version: str = "1"
    path: str
    format: Literal["class", "torchscript", "export", "safetensors"] = "class"
    entrypoint: str = ""
    weights: list[WeightsFile] = []
    inputs: list[TensorConfig] = []
    outputs: list[TensorConfig] = []
    compute: ComputeConfig = ComputeConfig()
    max_batch_size: int = Field(default=32, ge=1)
    max_queue_delay_ms: float = Field(default=0.0, ge=0)
    max_queue_size: int = Field(default=1024, ge=1)
    length_buckets: list[int] | None = None
    device_memory_bytes: int | None = Field(default=None, ge=0)
    options: dict[str, str | int | float | bool | None] = {}
    runtime: Literal["torch", "command"] = "torch"
    command: CommandConfig | None = None

    @model_validator(mode="after")
    def _command_is_there(self) -> ModelConfig:
        if (self.runtime == "command") != (self.command is not None):
            raise ValueError("runtime: command and a command go together")
        return self


class RecycleConfig(BaseModel):
    """When a worker process is replaced by a new one, for models that leak; None: never for that.

    `after_requests` answered; `memory_growth_bytes`: it holds that much more than right after its models were loaded
    and warmed (on a GPU what torch has reserved there, else the process's resident memory).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    after_requests: int | None = Field(default=None, ge=1)
    memory_growth_bytes: int | None = Field(default=None, ge=1)


class TelemetryConfig(BaseModel):
    """`otlp_endpoint`: where traces are sent (OTLP over HTTP), as http://collector:4318; None: what the standard
    OTEL_... variables say, and without those no traces at all. `sample`: the share of requests, of those that bring no
    decision with them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    otlp_endpoint: str | None = None
    sample: float = Field(default=1.0, ge=0, le=1)


class AgentConfig(BaseModel):
    """Everything an agent needs to know, read once from a file at its start.

    `listen` is "HOST:PORT" (port 0: the system picks one, see RunFile). `token_file` holds the bearer token.
    `device_memory_total_bytes` bounds the device memory that the agent reports and may use; None: what the device has.
    `action_id` is the controller's name for the start that made this process. A batch that takes longer than
    `hang_timeout_s` (and than ten times the 99th percentile of that model's batches) has its worker killed.
    `latency_...`: the target that the capacity estimate in the status is for.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    fleet: str = ""
    host: str = ""
    action_id: str = ""
    release: str = ""
    listen: str
    device: str = "auto"
    threads: int | None = Field(default=None, ge=1)
    models: list[ModelConfig]
    token_file: str | None = None
    run_file: str | None = None
    device_memory_total_bytes: int | None = Field(default=None, ge=0)
    drain_timeout_s: float = Field(default=30.0, ge=0)
    hang_timeout_s: float = Field(default=30.0, gt=0)
    latency_target_ms: float | None = Field(default=None, gt=0)
    latency_percentile: float = Field(default=95.0, ge=50, le=99.9)
    recycle: RecycleConfig = RecycleConfig()
    telemetry: TelemetryConfig = TelemetryConfig()


class RunFile(BaseModel):
    """Written atomically by the agent once it listens, so that it is found again after a reconnect.

    `start_ticks` is field 22 of /proc/PID/stat: with `boot_id` it tells this process from a later one of the same pid.
    """

    pid: int
    start_ticks: int
    boot_id: str
    port: int
    action_id: str
    release: str


class DeviceMemory(BaseModel):
    """Bytes on the device; None where it can't be known. Unknown is not full, and not empty.

    `reserved_bytes`: what the driver keeps for itself; it is part of the total and not of what is used. Left out where
    unknown.
    """

    used_bytes: int | None = None
    total_bytes: int | None = None
    reserved_bytes: int | None = None

    @property
    def taken_bytes(self) -> int | None:
        """What nobody can have: used, or reserved."""
        return None if self.used_bytes is None else self.used_bytes + (self.reserved_bytes or 0)

    @model_serializer(mode="wrap")
    def _told(self, plainly: SerializerFunctionWrapHandler) -> dict[str, int | None]:
        told: dict[str, int | None] = plainly(self)
        if self.reserved_bytes is None:
            del told["reserved_bytes"]
        return told


DeviceHealthState = Literal["healthy", "degraded", "failed", "unknown"]


class ForeignProcess(BaseModel):
    """A process that is none of ours and holds memory on the device."""

    pid: int
    name: str
    used_bytes: int | None = None


class DeviceStatus(BaseModel):
    """One device; None where it isn't known. `health`: `failed` computes nothing until the agent is started again,
    `degraded` serves and wants a look, `unknown` can't be asked; `reason` says why and what to do.

    `workers_bytes` of the memory are ours, `foreign_bytes` belong to `foreign`. `utilization` is a share (0..1).
    `worker_bytes`: resident memory of the worker process. `xids`: the last errors that the driver told, oldest first.
    """

    name: str
    uuid: str | None = None
    health: DeviceHealthState = "unknown"
    reason: str | None = None
    memory: DeviceMemory = DeviceMemory()
    workers_bytes: int | None = None
    foreign_bytes: int | None = None
    foreign: list[ForeignProcess] = []
    utilization: float | None = None
    temperature_c: float | None = None
    power_w: float | None = None
    throttled_by: list[str] = []
    xids: list[int] = []
    worker_pid: int | None = None
    worker_bytes: int | None = None


def room_bytes(used: int | None, total: int | None, held: int) -> int | None:
    """What a model finds on a device where it already holds `held` bytes: those, and what is free; None: unknown."""
    return None if used is None or total is None else total - used + held


class ModelStatus(BaseModel):
    """`device_memory_bytes` is what this model itself holds on the device; None: unknown.

    `service_curve` is what a batch costs here, learned: (items in it, seconds on the device), in order of size; empty
    until enough batches ran. `items` went to the device since the start and `completed` requests were answered.
    `engine`: of an outside engine only, what runs and what it says of itself.
    """

    name: str
    version: str
    ready: bool
    state: ModelState | None = None
    error: str | None = None
    queued: int = 0
    in_flight: int = 0
    max_batch_size: int = 1
    device_memory_bytes: int | None = None
    items: int = 0
    completed: int = 0
    service_curve: list[tuple[float, float]] = []
    engine: EngineStatus | None = None


class AgentStatus(BaseModel):
    """`GET /status` of an agent. Counters grow since `started_at` (Unix seconds); the reader subtracts.

    `busy_s` is how long the device was running batches; `queued` requests wait, `in_flight` ones are in a batch.
    `device_memory` is None per field when it can't be read. `capacity_rps`: requests/s within the latency target, by
    the models' curves and their mix so far; None without a target or before a curve is known. `recycles`: workers
    replaced by the leak guard, by reason.
    """

    schema_: Literal["fleetctl/agent-status/v1"] = Field(default="fleetctl/agent-status/v1", alias="schema")
    fleet: str
    host: str
    action_id: str
    release: str
    pid: int
    started_at: float
    at: float
    state: AgentState
    error: str | None = None
    models: list[ModelStatus]
    beside: list[ModelStatus] = []
    in_flight: int
    queued: int
    completed: int
    errors: int
    busy_s: float
    load_s: float | None = None
    latency: HistogramWire
    device: str
    device_memory: DeviceMemory
    devices: list[DeviceStatus] = []
    capacity_rps: float | None = None
    recycles: dict[str, int] = {}

    def room_bytes(self, model: str) -> int | None:
        """Device memory that `model` could have here: what is free plus what it holds already; None: unknown."""
        here = [m for m in [*self.models, *self.beside] if m.name == model]
        held = sum(m.device_memory_bytes or 0 for m in here if m.state != "failed")
        return room_bytes(self.device_memory.taken_bytes, self.device_memory.total_bytes, held)

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)
