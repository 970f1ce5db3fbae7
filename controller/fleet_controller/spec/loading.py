"""fleet.yaml -> FleetSpec: read, check each block, expand and merge, check the blocks against each other."""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import Field, ValidationError

from fleet_controller.spec import document, explain
from fleet_controller.spec.address import address, name
from fleet_controller.spec.checks import check
from fleet_controller.spec.draft import Draft, Entry, Findings, ModelDraft, PoolDraft
from fleet_controller.spec.fleet import FleetFile, FleetSpec, PoolSpec
from fleet_controller.spec.host import AgentSpec, Defaults, HostSpec, InstallSpec, SshSpec
from fleet_controller.spec.model import ModelSpec
from fleet_controller.spec.part import Part
from fleet_controller.spec.power import PowerSpec
from fleet_controller.spec.problem import Problem, SpecError, Steps
from fleet_controller.spec.ranges import MOST, RangeError, expand, has_range
from fleet_controller.spec.weights import WeightsSpec

P = TypeVar("P", bound=Part)


class _Frame(FleetFile):
    """The file without a look into the items of its lists: each of them is read, and fails, by itself."""

    hosts: tuple[Any, ...] = Field(min_length=1)
    models: tuple[Any, ...] = Field(min_length=1)
    pools: tuple[Any, ...] = Field(min_length=1)


_FILLER = {"fleet": "unnamed", "hosts": [None], "models": [None], "pools": [None]}


def load(path: Path, content: bytes | None = None) -> FleetSpec:
    """The fleet that the file at `path` describes. Raises SpecError, with all that is wrong at once.

    `content` stands for what is in the file; paths in it count from the file's folder all the same.
    """
    read = document.read(path) if content is None else document.parse(content, path)
    if not isinstance(read.value, dict):
        message = f'is {explain.shown(read.value)}, not a mapping; start with "fleet: NAME"'
        raise SpecError([Problem(message, *read.spot(()))], path)
    found = Findings(read)
    draft = _draft(read.value, found, path)
    if draft is not None:
        check(draft, found, _absolute(path).parent)
    if found.any or draft is None:
        raise SpecError(found.problems(), path)
    return FleetSpec(
        fleet=draft.file.fleet,
        hosts=tuple(host for entry in draft.entries for host in entry.hosts),
        models=tuple(model.spec for model in draft.models),
        pools=tuple(pool.spec.model_copy(update={"hosts": pool.hosts}) for pool in draft.pools),
        balancer=draft.file.balancer.under(_absolute(path).parent),
        controller=draft.file.controller,
        source=_absolute(path),
    )


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would follow links out of the fleet's folder


def _draft(value: dict[str, Any], found: Findings, path: Path) -> Draft | None:
    frame = _salvage(_Frame, value, (), found, _FILLER)
    if frame is None:
        return None
    draft = Draft(frame)
    folder = _absolute(path).parent
    _read_hosts(draft, _items(value, "hosts"), found, folder)
    for number, item in enumerate(_items(value, "models")):
        steps: Steps = ("models", number)
        model = _salvage(ModelSpec, item, steps, found)
        if model is not None:
            source = None if model.source is None else _absolute(folder / model.source)
            placed: dict[str, Any] = {"source": source}
            if model.weights:
                placed["weights"] = tuple(_from_here(pin, folder) for pin in model.weights)
            draft.models.append(ModelDraft(steps, model.model_copy(update=placed)))
        written = model.name if model is not None else _name(item)
        draft.model_names.add(written or "")
        draft.complete_models &= written is not None
    draft.complete_models &= not found.broken(("models",))
    for number, item in enumerate(_items(value, "pools")):
        pool = _salvage(PoolSpec, item, ("pools", number), found)
        if pool is not None:
            draft.pools.append(PoolDraft(("pools", number), _with_holidays(pool, frame)))
        draft.complete_pools &= pool is not None
    draft.complete_pools &= not found.broken(("pools",))
    return draft


def _from_here(pin: WeightsSpec, folder: Path) -> WeightsSpec:
    """Weights whose file is named from the folder of fleet.yaml have an absolute one."""
    if pin.origin is None or "://" in pin.origin:
        return pin
    return pin.model_copy(update={"origin": str(_absolute(folder / Path(pin.origin).expanduser()))})


def _with_holidays(pool: PoolSpec, file: FleetFile) -> PoolSpec:
    """A pool without holidays of its own has those of the fleet."""
    if "holidays" in pool.scaling.model_fields_set or not file.holidays:
        return pool
    scaling = pool.scaling.model_copy(update={"holidays": file.holidays})
    return pool.model_copy(update={"scaling": scaling})


def _items(value: dict[str, Any], key: str) -> list[Any]:
    items = value.get(key)
    return items if isinstance(items, list) else []


def _name(item: Any) -> str | None:
    written = item.get("name") if isinstance(item, dict) else None
    return str(written) if isinstance(written, str | int) else None


def _salvage(
    model: type[P], data: Any, at: Steps, found: Findings, filler: dict[str, Any] | None = None
) -> P | None:
    """`data` as `model`, noting what is wrong and going on without it; None if too little is left."""
    try:
        return model.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        for finding in explain.findings(error, model, at):
            found.note(finding)
        first = error
    rest = copy.deepcopy(data)
    problem: ValidationError | None = first
    for _ in range(4):  # what is left may have problems of its own, one layer at a time
        if problem is None or not isinstance(rest, dict):
            return None
        for detail in problem.errors(include_url=False):
            _cut(rest, detail["loc"], missing=detail["type"] == "missing")
        for key, value in (filler or {}).items():
            rest.setdefault(key, value)
        try:
            return model.model_validate(rest, by_alias=True, by_name=False)
        except ValidationError as again:
            problem = again
    return None


def _cut(data: dict[str, Any], loc: Steps, missing: bool) -> None:
    """Take the value at `loc` out of `data`: its whole list if it is in one, its block if that lacks it."""
    steps = list(loc[:-1] if missing else loc)
    for number, step in enumerate(steps):
        if isinstance(step, int):
            steps = steps[:number]
            break
    block: Any = data
    for step in steps[:-1]:
        block = block.get(step) if isinstance(block, dict) else None
    if steps and isinstance(block, dict):
        block.pop(steps[-1], None)


def _read_hosts(draft: Draft, items: list[Any], found: Findings, folder: Path) -> None:
    room = MOST
    for number, item in enumerate(items):
        steps: Steps = ("hosts", number)
        written = _salvage(HostSpec, item, steps, found)
        entry = Entry(steps, written)
        draft.entries.append(entry)
        try:
            entry.names = expand(written.name if written is not None else _name(item) or "?")
        except RangeError:  # noted by the model already
            entry.names = ("?",)
        draft.complete_hosts &= "?" not in entry.names
        if written is None:
            continue
        room -= len(entry.names)
        if room < 0:
            found.add(steps, f"the fleet has more than {MOST:,} hosts; split it into several fleets")
            break
        entry.hosts = _expand(written, entry, found, draft.file.defaults, folder)
    draft.complete_hosts &= not found.broken(("hosts",))


def _expand(
    written: HostSpec, entry: Entry, found: Findings, defaults: Defaults, folder: Path
) -> tuple[HostSpec, ...]:
    """The hosts that one entry stands for, with `defaults` worked in."""
    names = entry.names
    addresses = expand(written.address)
    at_address = (*entry.steps, "address")
    if written.is_local:
        addresses = ["local"] * len(names)
    elif len(names) != len(addresses):
        found.add(
            at_address,
            f'"{written.name}" is {len(names):,} hosts, "{written.address}" is {len(addresses):,}; '
            "make both ranges the same size",
        )
        return ()
    for texts, fit, at in ((names, name, (*entry.steps, "name")), (addresses, address, at_address)):
        for text in texts:
            try:
                fit(text)
            except ValueError as error:
                found.add(at, str(error))
                return ()
    ssh = _absolute_files(_merged(defaults.ssh, written.ssh), folder)
    power = _absolute_secrets(_merged(defaults.power, written.power), folder)
    agent = _merged(defaults.agent, written.agent)
    install = _merged(defaults.install, written.install)
    if written.is_local:
        # Local agents share one machine and the Python that runs this: what `defaults` says of these is
        # meant for machines of their own, and would make local agents clash.
        own_port = written.agent.port if "port" in written.agent.model_fields_set else 0
        agent = agent.model_copy(update={"port": own_port, "listen": written.agent.listen})
        given = "interpreter" in written.install.model_fields_set
        interpreter = written.install.interpreter if given else sys.executable
        install = install.model_copy(update={"interpreter": interpreter})
        power = written.power
    common = {"agent": agent, "install": install}
    named = _named(power) or power.via
    bmcs = _bmcs(power, len(names))
    return tuple(
        written.model_copy(
            update={
                "name": host,
                "address": at,
                "ssh": _own_way(ssh, written.ssh, host),
                "power": _own_power(power, written.power, host, at, bmc) if named else power,
                **common,
            }
        )
        for host, at, bmc in zip(names, addresses, bmcs, strict=True)
    )


Block = TypeVar("Block", SshSpec, PowerSpec, AgentSpec, InstallSpec)


def _merged(default: Block, own: Block) -> Block:
    """The block of a host: what it says itself, else what `defaults` says, else what the model says."""
    said = {key: getattr(default, key) for key in default.model_fields_set}
    said |= {key: getattr(own, key) for key in own.model_fields_set}
    return type(own)().model_copy(update=said)


def _absolute_files(ssh: SshSpec, folder: Path) -> SshSpec:
    # What was not written stays so: ~/.ssh/config may say it.
    written = {key: getattr(ssh, key) for key in ("known_hosts", "identity_file", "config")}
    files = {
        key: _absolute(folder / path)
        for key, path in written.items()
        if path is not None and key in ssh.model_fields_set
    }
    return ssh.model_copy(update=files)


def _own_way(ssh: SshSpec, own: SshSpec, host: str) -> SshSpec:
    """A jump host of `defaults` is not reached through itself."""
    if ssh.jump == host and "jump" not in own.model_fields_set:
        return ssh.model_copy(update={"jump": None})
    return ssh


def _absolute_secrets(power: PowerSpec, folder: Path) -> PowerSpec:
    files = {key: getattr(power, key) for key in ("password_file", "ca_file")}
    found = {key: _absolute(folder / path) for key, path in files.items() if path is not None}
    return power.model_copy(update=found) if found else power


_COMMANDS = ("on", "off", "force_off", "status")


def _named(power: PowerSpec) -> bool:
    """Whether anything in it differs from host to host."""
    words = [word for key in _COMMANDS for word in getattr(power, key)]
    return any("{" in word or "[" in word for word in (*words, power.domain, power.bmc or ""))


def _bmcs(power: PowerSpec, hosts: int) -> Sequence[str | None]:
    """The BMC of each host; a range stands for as many. One of another size stays as it is: see power_checks."""
    if power.bmc is not None and hosts > 1 and has_range(power.bmc):
        try:
            bmcs = expand(power.bmc)
        except RangeError:
            bmcs = []
        if len(bmcs) == hosts:
            return bmcs
    return [power.bmc] * hosts


def _own_power(power: PowerSpec, own: PowerSpec, host: str, at: str, bmc: str | None) -> PowerSpec:
    """What is the host's alone, with its name and address in place; a hypervisor does not switch itself."""
    if power.via == host and "via" not in own.model_fields_set:
        return own

    def filled(text: str) -> str:
        return text.replace("{name}", host).replace("{address}", at)

    commands = {key: tuple(filled(word) for word in getattr(power, key)) for key in _COMMANDS}
    return power.model_copy(
        update={**commands, "domain": filled(power.domain), "bmc": None if bmc is None else filled(bmc)}
    )
