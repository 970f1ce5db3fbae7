"""The command line and the configuration file, as one noun: Options. Decides what a flag overrides and what is wrong.

`--config FILE` (BalancerConfig as JSON) says what holds for the process; a flag given beside it wins over the file.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fleet_balancer.access.keys import Keyring
from fleet_balancer.member.member import address_of
from fleet_balancer.process.mistake import mistakes
from fleet_wire.balancer import (
    ApiKey,
    Backend,
    BackendList,
    BalancerConfig,
    BalancerLimits,
    Engine,
    PoolConfig,
    Routing,
)
from fleet_wire.refusal import Refusal

_LIMITS = {
    "header_timeout": "header_timeout_s",
    "idle_timeout": "idle_timeout_s",
    "body_timeout": "body_timeout_s",
    "max_body": "body_bytes",
}
# Flags of the pool that --backends makes.
_POOL = {
    "routing": "routing",
    "queue_size": "queue_size",
    "queue_timeout": "queue_timeout_s",
    "request_timeout": "request_timeout_s",
}


class UsageError(Exception):
    """Bad arguments: str() is one line for the operator. Exit code 2."""


class Options(BaseModel):
    """What one balancer was asked to be. `first` is the list it begins with; `fixed`: by --backends, else by nobody."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    config: BalancerConfig
    first: BackendList
    fixed: bool = False
    ready_file: str | None = None
    probe_interval_s: float = 1.0
    probe_timeout_s: float = 1.0
    grace_s: float = 30.0

    @property
    def listen(self) -> tuple[str, int]:
        return _address(self.config.listen, "--listen")

    @property
    def admin(self) -> tuple[str, int]:
        return _address(self.config.admin, "--admin")

    def token(self) -> str | None:
        """The admin token; None: none is asked for. Raises UsageError where the file does not hold one."""
        if self.config.token_file is None:
            return None
        path = Path(self.config.token_file)
        try:
            token = path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise UsageError(f"--token-file: {_unreadable(path, error)}") from None
        except UnicodeDecodeError:
            raise UsageError(f"--token-file: {path} holds no text") from None
        if not token:
            raise UsageError(f"--token-file: {path} is empty")
        return token


def read_options(argv: Sequence[str] | None) -> Options:
    """The options of a command line; None: this process's. Raises UsageError, or SystemExit as argparse does."""
    args = parser().parse_args(argv)
    given = {name: value for name, value in vars(args).items() if value is not None}
    options = Options(
        config=_config(args.config, given),
        first=_first_list(given),
        fixed="backends" in given,
        ready_file=args.ready_file,
        probe_interval_s=args.probe_interval,
        probe_timeout_s=args.probe_timeout,
        grace_s=args.grace,
    )
    _ = options.listen, options.admin
    _writable("--ready-file", options.ready_file)
    return options


def parser() -> argparse.ArgumentParser:
    p = argparse.ArgumentParser(
        prog="fleet-balancer",
        description="HTTP front door of a fleet: picks a host for each request. Without --backends it starts empty and "
        "waits for PUT /backends on the admin address.",
    )
    p.add_argument(
        "--config", metavar="FILE", help="BalancerConfig as JSON; SIGHUP reads it again; flags win over it"
    )
    p.add_argument("--listen", metavar="HOST:PORT", help="where clients connect (port 0: any)")
    p.add_argument("--admin", metavar="HOST:PORT", help="where status, metrics and backends are")
    p.add_argument("--backends", metavar="H:P[,H:P...]", help="a fixed list of hosts, any HTTP servers")
    p.add_argument("--routing", choices=get_args(Routing), help="for --backends")
    p.add_argument("--workers", type=_workers, help="processes that share the work (1..64)")
    p.add_argument(
        "--engine", choices=get_args(Engine), help="who carries the requests: builtin, or a HAProxy"
    )
    p.add_argument("--token-file", help="holds the bearer token that the admin address asks for")
    p.add_argument("--keys-file", help="for --backends: a JSON list of the API keys that may come in")
    p.add_argument("--state-file", help="keeps hosts, drains and ejections over a crash")
    p.add_argument("--ready-file", help="JSON {pid, listen, admin}, written once both listen")
    p.add_argument("--queue-size", type=_amount, help="for --backends: how many requests may wait")
    p.add_argument("--queue-timeout", type=_seconds, metavar="S", help="for --backends: how long")
    p.add_argument("--request-timeout", type=_seconds, metavar="S", help="for --backends")
    p.add_argument("--header-timeout", type=_seconds, metavar="S", help="for a request's head")
    p.add_argument("--idle-timeout", type=_seconds, metavar="S", help="between two requests")
    p.add_argument("--body-timeout", type=_seconds, metavar="S", help="without a byte of a body")
    p.add_argument("--max-body", type=_amount, metavar="BYTES", help="longest request body")
    p.add_argument(
        "--probe-interval", type=_seconds, default=1.0, metavar="S", help="between two health checks"
    )
    p.add_argument("--probe-timeout", type=_seconds, default=1.0, metavar="S", help="for one health check")
    p.add_argument(
        "--grace",
        type=_seconds,
        default=30.0,
        metavar="S",
        help="for requests in flight on SIGTERM and on reload",
    )
    return p


def _config(file: str | None, given: dict[str, Any]) -> BalancerConfig:
    if file is None:
        for name in ("listen", "admin"):
            if name not in given:
                raise UsageError(f"--{name} HOST:PORT is needed, or --config FILE that says it")
        config = BalancerConfig()
    else:
        config = _read(Path(file))
    limits = config.limits.model_dump() | {_LIMITS[name]: given[name] for name in _LIMITS if name in given}
    changed: dict[str, Any] = {"limits": BalancerLimits(**limits)}
    changed |= {
        name: given[name]
        for name in ("listen", "admin", "engine", "workers", "token_file", "state_file")
        if name in given
    }
    return config.model_copy(update=changed)


def _read(path: Path) -> BalancerConfig:
    try:
        return BalancerConfig.model_validate_json(path.read_bytes())
    except OSError as error:
        raise UsageError(f"--config: {_unreadable(path, error)}") from None
    except ValidationError as error:
        raise UsageError(f"--config: {path}: {mistakes(error, 'the file')}") from None


def _first_list(given: dict[str, Any]) -> BackendList:
    addresses = [a for a in given.get("backends", "").split(",") if a]
    for address in addresses:
        _address(address, "--backends")
    if len(set(addresses)) != len(addresses):
        raise UsageError("--backends: an address is listed twice")
    pool = PoolConfig.model_validate({field: given[name] for name, field in _POOL.items() if name in given})
    return BackendList(
        pools=[pool], backends=[Backend(name=a, address=a) for a in addresses], keys=_keys(given)
    )


def _keys(given: dict[str, Any]) -> list[ApiKey] | None:
    """The keys in --keys-file; None: nobody is asked for one."""
    if "keys_file" not in given:
        return None
    if "backends" not in given:
        raise UsageError(
            "--keys-file is for --backends; where hosts come by PUT /backends, keys come with them"
        )
    path = Path(given["keys_file"])
    try:
        keys = TypeAdapter(list[ApiKey]).validate_json(path.read_bytes())
        Keyring(keys)
    except OSError as error:
        raise UsageError(f"--keys-file: {_unreadable(path, error)}") from None
    except ValidationError as error:
        raise UsageError(f"--keys-file: {path}: {mistakes(error, 'the file')}") from None
    except Refusal as refusal:
        raise UsageError(f"--keys-file: {path}: {refusal.message}") from None
    return keys


def _unreadable(path: Path, error: OSError) -> str:
    return f"{path} can't be read: {error.strerror or error}"


def _writable(option: str, file: str | None) -> None:
    """Raises UsageError where `file` can't be made, as far as can be told without making it."""
    if file is None:
        return
    folder = Path(file).parent
    if not folder.is_dir():
        raise UsageError(f"{option}: {file} can't be written: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UsageError(f"{option}: {file} can't be written: no permission to make files in {folder}")
    if Path(file).is_dir():
        raise UsageError(f"{option}: {file} is a folder")


def _address(text: str, option: str) -> tuple[str, int]:
    if "://" in text:
        raise UsageError(f"{option}: {text!r} is not HOST:PORT: leave out {text.partition('://')[0]}://")
    try:
        return address_of(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds") from None
    if not 0.001 <= seconds <= 1e6:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.001 and 1000000 seconds")
    return seconds


def _amount(text: str) -> int:
    amount = _whole(text)
    if amount < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return amount


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number") from None


def _workers(text: str) -> int:
    workers = _whole(text)
    if not 1 <= workers <= 64:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 64")
    return workers
