"""What is said at the end of `up`, `scale` and `down`."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from fleet_controller.spec import FleetSpec, ModelSpec
from fleetctl.render.terminal import show
from fleetctl.render.text import age, line
from fleetctl.rollout import Rising

# A model's folder may hold a request that it answers, for people to try.
EXAMPLE = "request.json"


def failures(errors: Mapping[str, str], stream: TextIO) -> None:
    """A paragraph for each host that failed: which one, why, what to do."""
    for host, error in sorted(errors.items()):
        text = line(error)
        show(text if text.startswith(f"{host}:") else f"{host}: {text}", stream=stream)


def unproven(hosts: Iterable[str], stream: TextIO) -> None:
    """Who was out of reach when the fleet went down: nobody knows what runs there."""
    if names := _listed(hosts):
        still = "an agent may still run there. Once that can be reached again"
        show(f"not proved to be off: {names}; {still}: `fleetctl down`", stream=stream)


def held(hosts: Iterable[str], stream: TextIO) -> None:
    """Whose stop failed when the fleet went down: the controller, which tries it again, is stopped too."""
    if names := _listed(hosts):
        still = "nothing tries that again while the fleet is down. Once it is mended"
        show(f"still to be stopped: {names}; {still}: `fleetctl down`", stream=stream)


def _listed(hosts: Iterable[str]) -> str:
    """The first ten by name."""
    names = sorted(hosts)
    return f"{', '.join(names[:10])}{', ...' if len(names) > 10 else ''}"


def unfinished(told: Mapping[str, Any] | None, stream: TextIO) -> None:
    """What an operation did not come to, and how to go on."""
    if told is None or not told["left"]:
        return
    listed, command = _listed(told["left"]), f"fleetctl {told['kind']}"
    if told["outcome"] == "halted":
        many = len(told["failed"])
        text = (
            f"{many} host{'s' * (many != 1)} failed, so nothing more was begun; left as they are: {listed}. "
        )
        show(f"{text}Mend what failed, then `{command}` goes on", stream=stream)
    else:
        show(f"not done: {listed}; `fleetctl plan` says what is still to do", stream=stream)


def pending(rising: Rising, status: Mapping[str, Any], timeout_s: float, stream: TextIO) -> None:
    """What was still missing when the time was up."""
    pools = rising.short(status)
    missing = ", ".join(f"pool {p['name']} has {p['ready']} of {p['desired']} hosts ready" for p in pools)
    working = [
        f"{name} is {host['state']}"
        for name, host in sorted(rising.ledger.of_interest(status).items())
        if host["state"] not in ("off", "ready")
    ]
    show(
        f"not done after {age(timeout_s)}: {missing or 'the controller has not decided yet'}"
        + (f" ({', '.join(working[:10])}{', ...' if len(working) > 10 else ''})" if working else "")
        + "; the controller goes on, watch it with: fleetctl status --watch",
        stream=stream,
    )


def summary(spec: FleetSpec, status: Mapping[str, Any], stream: TextIO) -> None:
    """The endpoint, each pool, and what to type next."""
    endpoint = status.get("endpoint") or f"http://{spec.balancer.listen}"
    show(f"endpoint  {endpoint}", stream=stream)
    pools(status.get("pools", []), stream)
    pictures = status.get("pools", [])
    # a pool that scaled to zero starts a host when a request comes
    if any(pool["ready"] for pool in pictures) or not any(pool.get("desired") for pool in pictures):
        asks = spec.balancer.keys == "required"
        show(f"try it    {curl(endpoint, spec.models[0], with_key=asks)}", stream=stream)
        if asks:
            show("a key     KEY=$(fleetctl keys create NAME)", stream=stream)
    else:
        show("see why   fleetctl events; fleetctl hosts", stream=stream)


def pools(pictures: Iterable[Mapping[str, Any]], stream: TextIO) -> None:
    for pool in pictures:
        show(f"pool      {line(pool['name'])}: {pool['ready']} of {pool.get('desired')} ready", stream=stream)


def curl(endpoint: str, model: ModelSpec, with_key: bool = False) -> str:
    """A request that `model` should answer: its own example where its folder has one."""
    example = None if model.source is None else model.source / EXAMPLE
    url = f"{endpoint}/v1/models/{model.name}:predict"
    body = json.dumps({"instances": ["Hello, fleet"]})
    if model.command is not None:
        url = f"{endpoint}/v1/chat/completions"
        body = json.dumps({"model": model.name, "messages": [{"role": "user", "content": "Hello, fleet"}]})
    if example is not None and example.is_file():
        body = f"@{_short(example)}"
    key = ' -H "authorization: Bearer $KEY"' if with_key else ""
    # -S: where a certificate is not trusted, say, it should not fail in silence.
    return f"curl -sS {shlex.quote(url)}{key} -H 'content-type: application/json' -d {shlex.quote(body)}"


def _short(path: Path) -> Path:
    """Relative to the current folder where it lies under it."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
