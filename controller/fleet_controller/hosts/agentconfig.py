"""What an agent is started with, out of fleet.yaml. PURE."""

from __future__ import annotations

from collections.abc import Sequence

from fleet_controller.spec import HostSpec, LatencyTarget, ModelSpec
from fleet_controller.spec.command import CommandSpec
from fleet_controller.spec.weights import TensorSpec
from fleet_wire.agent import (
    AgentConfig,
    ComputeConfig,
    ModelConfig,
    RecycleConfig,
    TelemetryConfig,
    TensorConfig,
    WeightsFile,
)
from fleet_wire.command import CommandConfig, MetricNames


def agent_config(
    fleet: str,
    host: HostSpec,
    models: Sequence[ModelSpec],
    release: str,
    action_id: str,
    target: LatencyTarget | None = None,
) -> AgentConfig:
    """`release` is its key; `target` the pool's, for the capacity that the agent tells."""
    return AgentConfig(
        fleet=fleet,
        host=host.name,
        action_id=action_id,
        release=release,
        listen=f"{bracketed(host.bind_address)}:{host.agent.port}",
        device=host.agent.device,
        threads=host.agent.threads,
        models=[_model(model) for model in models],
        device_memory_total_bytes=host.device_memory_bytes,
        drain_timeout_s=host.agent.drain_timeout,
        latency_target_ms=None if target is None else target.target_ms,
        latency_percentile=95.0 if target is None else target.percentile,
        recycle=RecycleConfig(**host.agent.recycle.model_dump()),
        telemetry=TelemetryConfig(**host.agent.telemetry.model_dump()),
    )


def _model(model: ModelSpec) -> ModelConfig:
    return ModelConfig(
        name=model.name,
        version=model.version,
        path=f"models/{model.name}",  # in the release's folder; the keeper knows where that is
        format=model.format,
        entrypoint=model.entrypoint,
        weights=[WeightsFile(**pin.model_dump(exclude={"origin", "mount"})) for pin in model.weights],
        inputs=[_tensor(tensor) for tensor in model.inputs],
        outputs=[_tensor(tensor) for tensor in model.outputs],
        compute=ComputeConfig(**model.compute.model_dump()),
        max_batch_size=model.batching.max_batch_size,
        max_queue_delay_ms=model.batching.max_queue_delay_ms,
        max_queue_size=model.batching.max_queue_size,
        length_buckets=model.batching.length_buckets,
        device_memory_bytes=model.device_memory_bytes,
        options=model.options,
        runtime=model.runtime,
        command=None if model.command is None else _command(model.command),
    )


def _command(command: CommandSpec) -> CommandConfig:
    metrics = command.metrics
    return CommandConfig(
        argv=list(command.argv),
        env=command.env,
        folder=command.folder,
        port=command.port,
        health=command.health,
        health_interval_s=command.health_interval,
        paths=list(command.paths),
        served_name=command.served_name,
        max_in_flight=command.max_in_flight,
        start_timeout_s=command.start_timeout,
        hang_timeout_s=command.hang_timeout,
        stop_signal=command.stop_signal,
        stop_grace_s=command.stop_grace,
        metrics=None if metrics is None else MetricNames(**metrics.model_dump()),
    )


def _tensor(tensor: TensorSpec) -> TensorConfig:
    return TensorConfig(name=tensor.name, datatype=tensor.datatype, shape=list(tensor.shape))


def bracketed(address: str) -> str:
    """As it stands in an address with a port."""
    return f"[{address}]" if ":" in address else address
