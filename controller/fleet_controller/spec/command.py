"""An outside engine as a model: how it is started, asked whether it is well, and stopped."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from fleet_controller.spec.duration import Duration, PositiveDuration
from fleet_controller.spec.part import Part, Text
from fleet_controller.spec.power import Argv
from fleet_wire.command import PLACEHOLDERS, placeholders

_METRIC = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")


def _known(text: str) -> str:
    for name in placeholders(text):
        if name not in PLACEHOLDERS:
            near = difflib.get_close_matches(name, PLACEHOLDERS, 1)
            hint = f"did you mean {{{near[0]}}}?" if near else f"known are {', '.join(PLACEHOLDERS)}"
            raise ValueError(f"{{{name}}} stands for nothing; {hint}")
    return text


def _words(value: tuple[str, ...]) -> tuple[str, ...]:
    for word in value:
        _known(word)
    if len(value) == 1 and " " in value[0]:
        raise ValueError(f'has one word, "{value[0][:70]}"; write each word by itself')
    return value


def _address(value: str) -> str:
    if not re.fullmatch(r"/[^\x00-\x20\x7f#?]*", value) or ".." in value.split("/"):
        raise ValueError(f'"{value[:70]}" is not the path of an address; write it like "/health"')
    return value


def _metric(value: str) -> str:
    if not _METRIC.fullmatch(value):
        raise ValueError(
            f'"{value[:70]}" is not the name of a metric; write it without labels, as "vllm:num_requests_waiting"'
        )
    return value


def _auto(value: object) -> object:
    if value == "auto":
        return 0
    if isinstance(value, str) or (isinstance(value, int) and not 0 <= value <= 65535):
        raise ValueError(f'"{str(value)[:20]}" is not a port; write "auto", or a number between 1 and 65535')
    return value


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
        raise ValueError(f'"{value[:70]}" is not the name of an environment variable')
    return value


Word = Annotated[Text, AfterValidator(_known)]
Address = Annotated[str, AfterValidator(_address)]
Metric = Annotated[str, AfterValidator(_metric)]
Place = Annotated[
    int,
    BeforeValidator(_auto),
    WithJsonSchema({"type": ["string", "integer"], "pattern": "^auto$", "minimum": 0, "maximum": 65535}),
]


class EngineMetricsSpec(Part):
    """The engine's own Prometheus metrics that say how busy it is. Without a name its figure is unknown."""

    path: Address = Field(
        default="/metrics", description="Where they are; on {metrics_port} if the command has that."
    )
    waiting: Metric | None = Field(default=None, description="Requests that wait in the engine.")
    running: Metric | None = Field(default=None, description="Requests that it works on.")
    cache: Metric | None = Field(default=None, description="The share of its cache in use, 0 to 1.")


class CommandSpec(Part):
    """An HTTP inference server that the agent runs. In argv, env and folder stand for the host's own: {port}, {host},
    {metrics_port}, {device}, {device_index}, {path} of source, {name}, {version} and {python}."""

    argv: Annotated[Argv, Field(min_length=1), AfterValidator(_words)] = Field(
        description="The program and its words; no shell reads them. It has to stay in the foreground."
    )
    env: dict[Annotated[str, AfterValidator(_variable)], Word] = Field(
        default={}, repr=False, description="Environment variables, beside the agent's: KEY: VALUE."
    )
    folder: Word | None = Field(
        default=None, description="Where it runs, from source on; none: in source, if there is one."
    )
    port: Place = Field(
        default=0, description='Where it listens, on 127.0.0.1; "auto": on a free port, as {port}.'
    )
    health: Address = Field(default="/health", description="Answers 2xx when it takes requests.")
    health_interval: PositiveDuration = Field(default=1.0, description="How often that is asked.")
    paths: tuple[Address, ...] = Field(
        default=("/v1", "/v2"), min_length=1, description="Beginnings of the addresses that it answers."
    )
    served_name: str | None = Field(
        default=None, min_length=1, description="What the engine calls the model; none: by its name here."
    )
    max_in_flight: int = Field(
        default=256,
        ge=1,
        description="Most requests in the engine; more wait, up to batching.max_queue_size.",
    )
    start_timeout: PositiveDuration = Field(
        default=600.0,
        description="How long it may take to be well; the host's agent.start_timeout holds too.",
    )
    hang_timeout: PositiveDuration = Field(
        default=30.0, description="Without a sign of life for so long it is killed and started again."
    )
    stop_signal: Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"] = Field(
        default="SIGTERM", description="What asks it to end, once its requests are answered."
    )
    stop_grace: Duration = Field(
        default=10.0, description="How long it may take for that; then it is killed."
    )
    metrics: EngineMetricsSpec | None = Field(
        default=None, description="Its own metrics that count as queue and load; none: what the agent counts."
    )

    @model_validator(mode="after")
    def _can_be_reached(self) -> CommandSpec:
        texts = (*self.argv, *self.env.values())
        if self.port == 0 and not any("port" in placeholders(text) for text in texts):
            raise ValueError(
                "nothing tells the engine where to listen; put {port} into argv or env, or write its port: NUMBER"
            )
        return self
