"""What the agent was told, by a file or by flags: read, checked, and refused in one line where it can't be used."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from fleet_wire.agent import AgentConfig, ModelConfig


class BadConfig(Exception):
    """str() is one line: what is wrong where, and what to do."""


def configured(argv: Sequence[str] | None) -> AgentConfig:
    """By `--config FILE` or by the other flags. Raises BadConfig; SystemExit for unknown flags, as argparse does."""
    arguments = _parser().parse_args(argv)
    return _from_file(arguments.config) if arguments.config else _from_flags(arguments)


def token_of(config: AgentConfig) -> str | None:
    """What callers must present, or None. Raises BadConfig, for what else can't be used as well."""
    names = [model.name for model in config.models]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadConfig(
            f"model {twice[0]} is configured twice; leave one version, and load others when it runs"
        )
    if config.run_file is not None and not Path(config.run_file).expanduser().parent.is_dir():
        raise BadConfig(f"run_file: there is no folder {Path(config.run_file).parent}; create it first")
    if config.token_file is None:
        return None
    try:
        token = Path(config.token_file).expanduser().read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"token file {config.token_file} can't be read: {error}") from None
    if not token:
        raise BadConfig(
            f"token file {config.token_file} is empty; write a token into it or leave the option out"
        )
    return token


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fleet-agent", description="Serve torch models over HTTP, batched.")
    parser.add_argument(
        "--config", type=Path, metavar="FILE", help="JSON configuration; excludes the other flags"
    )
    parser.add_argument("--listen", metavar="H:P", help="address to listen on; port 0 takes a free one")
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=DIR:module:Class", help="repeatable"
    )
    parser.add_argument(
        "--device", default="auto", help="auto, cpu, cuda:N, or several with commas (default: auto)"
    )
    parser.add_argument("--threads", type=int, metavar="N", help="torch threads of a worker")
    parser.add_argument("--max-batch-size", type=int, default=32, metavar="N", help="instances (default: 32)")
    parser.add_argument(
        "--max-queue-delay-ms", type=float, default=0.0, metavar="X", help="wait for company (default: 0)"
    )
    parser.add_argument(
        "--token-file", metavar="F", help="file with the bearer token that callers must present"
    )
    return parser


def _from_file(path: Path) -> AgentConfig:
    try:
        return AgentConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise BadConfig(f"{path} can't be read: {error.strerror}") from None
    except ValidationError as error:
        raise BadConfig(f"{path}: {_problems(error)}") from None


def _from_flags(arguments: argparse.Namespace) -> AgentConfig:
    if not arguments.listen or not arguments.model:
        raise BadConfig("give --config FILE, or --listen H:P and at least one --model NAME=DIR:module:Class")
    models = [
        _model(text, arguments.max_batch_size, arguments.max_queue_delay_ms) for text in arguments.model
    ]
    try:
        return AgentConfig(
            listen=arguments.listen,
            device=arguments.device,
            threads=arguments.threads,
            models=models,
            token_file=arguments.token_file,
        )
    except ValidationError as error:
        raise BadConfig(_problems(error)) from None


def _model(text: str, max_batch_size: int, max_queue_delay_ms: float) -> ModelConfig:
    name, _, rest = text.partition("=")
    folder, _, entrypoint = rest.partition(":")
    if not name or not folder or not entrypoint:
        raise BadConfig(
            f"--model {text}: expected NAME=DIR:module:Class, such as tiny=examples/tiny:model:Tiny"
        )
    try:
        return ModelConfig(
            name=name,
            path=str(Path(folder).resolve()),
            entrypoint=entrypoint,
            max_batch_size=max_batch_size,
            max_queue_delay_ms=max_queue_delay_ms,
        )
    except ValidationError as error:
        raise BadConfig(f"--model {text}: {_problems(error)}") from None


def _problems(error: ValidationError) -> str:
    return "; ".join(f"{'.'.join(map(str, p['loc'])) or 'file'}: {p['msg']}" for p in error.errors())
