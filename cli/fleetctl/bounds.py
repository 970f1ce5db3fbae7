"""The bounds that an operator sets to one `up` or `down`, as they travel to the controller."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import typer

from fleet_controller.spec import FleetSpec
from fleetctl.failure import USAGE, Failed
from fleetctl.selection import hosts_meant


@dataclass(frozen=True)
class Share:
    """`--max-fail`: a number of hosts, or a share of them in percent."""

    hosts: int | None = None
    percent: float | None = None


def share(value: str | Share) -> Share:
    """N or P%. Raises typer.BadParameter."""
    if isinstance(value, Share):
        return value
    text = value.strip()
    number = text.removesuffix("%")
    if text.endswith("%") and re.fullmatch(r"\d{1,3}(\.\d+)?", number) and float(number) <= 100:
        return Share(percent=float(number))
    if re.fullmatch(r"[1-9]\d{0,5}", text):
        return Share(hosts=int(text))
    raise typer.BadParameter(f'"{value[:40]}" is no number of hosts, like 2, and no share of them, like 20%')


def limit_of(spec: FleetSpec, globs: Sequence[str] | None) -> list[str] | None:
    """The hosts that `--limit` means; None where it is not given. Raises Failed (usage)."""
    if not globs:
        return None
    wanted = [part.strip() for glob in globs for part in glob.split(",") if part.strip()]
    if not wanted:
        raise Failed("--limit names no host; write it like --limit gpu-a,rack2-*", USAGE)
    named = [host.name for host in hosts_meant(spec, wanted)]
    served = [name for name in named if spec.pools_of(name)]
    if not served:
        raise Failed(f"{', '.join(named)}: in no pool of {spec.source.name}, so nothing runs there", USAGE)
    return served


def bounds_of(
    limit: list[str] | None, parallel: int | None, max_fail: Share | None, **more: Any
) -> dict[str, Any]:
    """What the controller is handed; `id` names the operation."""
    told = {"hosts": limit, "parallel": parallel, **more}
    if max_fail is not None:
        told |= {"max_fail": max_fail.hosts, "max_fail_percent": max_fail.percent}
    return {"id": uuid.uuid4().hex, **{key: value for key, value in told.items() if value is not None}}
