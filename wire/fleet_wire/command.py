"""How an outside engine is run as a model: any HTTP inference server that a command starts."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

PLACEHOLDERS = {
    "host": "the address that the engine has to listen on",
    "port": "the port that it has to listen on",
    "metrics_port": "a second free port, on which metrics are then asked for",
    "device": 'the agent\'s device: "cpu", "cuda:0", or several with commas',
    "device_index": 'only the numbers of the device ("0", "0,1"); nothing on a CPU: for CUDA_VISIBLE_DEVICES',
    "path": "the model's folder on the host",
    "name": "the model's name",
    "version": "its version",
    "python": "the agent's own Python, which has the model's requirements",
}
_PLACEHOLDER = re.compile(r"(?<!\{)\{([a-z_]+)\}(?!\})")


def placeholders(text: str) -> list[str]:
    """The names in braces in `text`, known or not. Anything else in braces ({"json": 1}, {{x}}) is itself."""
    return _PLACEHOLDER.findall(text)


def filled(text: str, values: dict[str, str]) -> str:
    """`text` with the placeholders' values. Raises KeyError for a name that `values` lacks."""
    return _PLACEHOLDER.sub(lambda found: values[found[1]], text)


class MetricNames(BaseModel):
    """What the engine's own Prometheus metrics are called. Waiting and running ones are requests; `cache` is the share
    of its cache in use, 0 to 1. A name's samples are added up over labels; of the cache's the largest counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    path: str = "/metrics"
    waiting: str | None = None
    running: str | None = None
    cache: str | None = None


class CommandConfig(BaseModel):
    """An engine's start command and manners. Seconds everywhere; see PLACEHOLDERS for `argv` and `env`.

    `port` 0: a free one, another at each start. `paths` are the beginnings of the addresses that it answers.
    `served_name`: what the engine itself calls the model; None: the same name. `folder`: where it runs; None: in the
    model's folder. `hang_timeout_s`: silent that long, it is replaced; None: the agent's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    argv: list[str] = Field(min_length=1)
    env: dict[str, str] = Field(default={}, repr=False)
    folder: str | None = None
    port: int = Field(default=0, ge=0, le=65535)
    health: str = "/health"
    health_interval_s: float = Field(default=1.0, gt=0)
    paths: list[str] = Field(default=["/v1", "/v2"], min_length=1)
    served_name: str | None = None
    max_in_flight: int = Field(default=256, ge=1)
    start_timeout_s: float = Field(default=600.0, gt=0)
    hang_timeout_s: float | None = Field(default=None, gt=0)
    stop_signal: Literal["SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"] = "SIGTERM"
    stop_grace_s: float = Field(default=10.0, ge=0)
    metrics: MetricNames | None = None

    def uses(self, placeholder: str) -> bool:
        """Whether the command or its environment asks for that value."""
        return any(placeholder in placeholders(text) for text in (*self.argv, *self.env.values()))


class EngineStatus(BaseModel):
    """What is known of an outside engine: its process, and its own figures where `metrics` names them (None: unknown).

    `state`: starting, ready, unwell (it runs and does not answer well), waiting (for its next start), failed, off.
    """

    state: Literal["off", "starting", "ready", "unwell", "waiting", "failed"]
    pid: int | None = None
    port: int | None = None
    restarts: int = 0
    hangs: int = 0
    waiting: float | None = None
    running: float | None = None
    cache_use: float | None = None
