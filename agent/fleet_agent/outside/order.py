"""The command of an engine as it is run: words, environment and folder with their placeholders filled in. PURE."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePath

from fleet_wire.agent import ModelConfig
from fleet_wire.command import PLACEHOLDERS, CommandConfig, filled

HOST = "127.0.0.1"
# The agent's own code is none of the engine's business.
_KEPT_BACK = ("PYTHONPATH",)


class BadCommand(Exception):
    """str() says what in the command can't be used, and what to do."""


@dataclass(frozen=True, slots=True)
class Order:
    """What to run. `folder` None: where the agent runs. `metrics_port` is the port to ask for metrics."""

    argv: tuple[str, ...]
    env: dict[str, str]
    folder: str | None
    port: int
    metrics_port: int


def order(
    config: ModelConfig,
    inherited: Mapping[str, str],
    *,
    device: str,
    python: str,
    has_folder: bool,
    port: int,
    metrics_port: int,
) -> Order:
    """`inherited`: the agent's environment; the engine's own adds to it. `has_folder`: config.path is there.

    The folder of `python` goes first in PATH, so that what the model's requirements brought is found by its name.
    Raises BadCommand.
    """
    command = config.command
    assert command is not None
    values = {
        "host": HOST,
        "port": str(port),
        "metrics_port": str(metrics_port),
        "device": device,
        "device_index": ",".join(
            part.strip().partition(":")[2] or "0" for part in device.split(",") if "cuda" in part
        ),
        "path": config.path,
        "name": config.name,
        "version": config.version,
        "python": python,
    }
    env = {name: value for name, value in inherited.items() if name not in _KEPT_BACK}
    env["PATH"] = f"{PurePath(python).parent}:{inherited.get('PATH', '/usr/local/bin:/usr/bin:/bin')}"
    env["PYTHONUNBUFFERED"] = "1"
    try:
        argv = tuple(filled(word, values) for word in command.argv)
        env |= {name: filled(value, values) for name, value in command.env.items()}
        folder = None if command.folder is None else filled(command.folder, values)
    except KeyError as error:
        raise BadCommand(
            f"model {config.name}: the command has {{{error.args[0]}}}; known are {', '.join(PLACEHOLDERS)}"
        ) from None
    if folder is None and has_folder:
        folder = config.path
    elif folder is not None and has_folder:
        folder = str(PurePath(config.path) / folder)
    own = command.metrics is not None and command.uses("metrics_port")
    return Order(argv, env, folder, port, metrics_port if own else port)


def health_url(command: CommandConfig, port: int) -> str:
    return f"http://{HOST}:{port}{command.health}"
