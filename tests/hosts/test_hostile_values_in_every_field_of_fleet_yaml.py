"""Every text in fleet.yaml, with values that would run something: refused with its line, or carried as it is.

FIELDS names each text of the schema. A new one that is not in it fails the first test: say there where its value goes,
before it goes anywhere.
"""

from __future__ import annotations

import copy
import json
import re
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from fleet_lab.hostile import ESCAPED, PAYLOADS
from pydantic import BaseModel

from fleet_controller.spec import SpecError, load
from fleet_controller.spec.fleet import FleetFile

# Where a value goes: "name" (into paths, commands, metrics: letters, digits and ._- alone), "argv" (a word of a
# command, there or here), "there" (to the host, in the keeper's standard input), "here" (a path of this machine),
# "network" (an address or an URL that this machine or an agent asks), "decides" (never leaves the controller).
GOES = Literal["name", "argv", "there", "here", "network", "decides"]
IPMI = {"driver": "ipmi", "bmc": "127.0.0.1", "user": "root", "password_env": "BMC"}
IPMI_FILE = {"driver": "ipmi", "bmc": "127.0.0.1", "user": "root"}
COMMAND = {"driver": "command", "on": ["true"], "off": ["true"], "status": ["true"]}
WOL = {"driver": "wol", "mac": "52:54:00:12:34:56"}
REDFISH = {"driver": "redfish", "bmc": "https://127.0.0.1"}
ENGINE = {"argv": ["server", "{port}"], "paths": ["/v1/x"]}
ENGINE_MODEL = {"models[]": {"name": "tiny", "source": "tiny", "runtime": "command", "command": ENGINE}}

CRON = {"pools[].scaling.schedules[]": {"cron": "0 8 * * *", "min_servers": 1}}
DAY = {
    "pools[].scaling.schedules[]": {"at": "2030-01-01 08:00", "until": "2030-01-02 08:00", "min_servers": 1}
}

# Path of the field: where it goes, and a value that is good there, with what has to stand beside it.
FIELDS: dict[str, tuple[GOES, str, dict[str, Any]]] = {
    "fleet": ("name", "demo", {}),
    "hosts[].name": ("name", "h1", {}),
    "hosts[].address": ("network", "10.0.0.1", {}),
    "hosts[].zone": ("decides", "rack 1", {}),
    "hosts[].labels{key}": ("decides", "gpu", {}),
    "hosts[].labels{}": ("decides", "h100", {}),
    "hosts[].ssh.user": ("name", "ops", {}),
    "hosts[].ssh.identity_file": ("here", "/tmp/key", {}),
    "hosts[].ssh.known_hosts": ("here", "/tmp/known_hosts", {}),
    "hosts[].ssh.config": ("here", "/tmp/config", {}),
    "hosts[].ssh.jump": ("network", "bastion", {}),
    "hosts[].power.on[]": ("argv", "start", {"hosts[].power": COMMAND}),
    "hosts[].power.off[]": ("argv", "stop", {"hosts[].power": COMMAND}),
    "hosts[].power.force_off[]": ("argv", "kill", {"hosts[].power": COMMAND}),
    "hosts[].power.status[]": ("argv", "state", {"hosts[].power": COMMAND}),
    "hosts[].power.status_on": ("decides", "on", {"hosts[].power": COMMAND}),
    "hosts[].power.status_off": ("decides", "off", {"hosts[].power": COMMAND}),
    "hosts[].power.via": ("name", "h2", {"hosts[].power": COMMAND}),
    "hosts[].power.uri": ("argv", "qemu:///system", {"hosts[].power": {"driver": "libvirt"}}),
    "hosts[].power.domain": ("argv", "vm-1", {"hosts[].power": {"driver": "libvirt"}}),
    "hosts[].power.bmc": ("argv", "127.0.0.2", {"hosts[].power": IPMI}),
    "hosts[].power.user": ("argv", "admin", {"hosts[].power": IPMI}),
    "hosts[].power.password_file": ("here", "/tmp/password", {"hosts[].power": IPMI_FILE}),
    "hosts[].power.password_env": ("name", "BMC_PASSWORD", {"hosts[].power": IPMI}),
    "hosts[].power.system": ("network", "/redfish/v1/Systems/1", {"hosts[].power": REDFISH}),
    "hosts[].power.ca_file": ("here", "/tmp/ca.pem", {"hosts[].power": REDFISH}),
    "hosts[].power.mac": ("network", "52:54:00:12:34:57", {"hosts[].power": WOL}),
    "hosts[].power.broadcast": ("network", "10.0.0.255", {"hosts[].power": WOL}),
    "hosts[].power.group": ("decides", "rack 1", {"hosts[].power": COMMAND}),
    "hosts[].agent.listen": ("network", "127.0.0.1", {}),
    "hosts[].agent.device": ("name", "cuda:0", {}),
    "hosts[].agent.telemetry.otlp_endpoint": ("network", "http://127.0.0.1:4318", {}),
    "hosts[].agent.writable[]": ("there", "/srv/data", {}),
    "hosts[].install.python": ("argv", "python3.11", {}),
    "hosts[].install.interpreter": ("argv", "/opt/venv/bin/python", {}),
    "hosts[].install.pip_args[]": ("argv", "--pre", {}),
    "hosts[].install.directory": ("there", "/srv/fleetctl", {}),
    "models[].name": ("name", "tiny", {}),
    "models[].version": ("name", "2", {}),
    "models[].source": ("here", "tiny", {}),
    "models[].command.argv[]": ("argv", "--port", ENGINE_MODEL),
    "models[].command.env{key}": ("name", "HF_HOME", ENGINE_MODEL),
    "models[].command.env{}": ("there", "/data", ENGINE_MODEL),
    "models[].command.folder": ("there", "tiny", ENGINE_MODEL),
    "models[].command.health": ("network", "/health", ENGINE_MODEL),
    "models[].command.paths[]": ("network", "/v1/chat/completions", ENGINE_MODEL),
    "models[].command.served_name": ("there", "llama", ENGINE_MODEL),
    "models[].command.metrics.path": ("network", "/metrics", ENGINE_MODEL),
    "models[].command.metrics.waiting": ("there", "vllm:waiting", ENGINE_MODEL),
    "models[].command.metrics.running": ("there", "vllm:running", ENGINE_MODEL),
    "models[].command.metrics.cache": ("there", "vllm:cache", ENGINE_MODEL),
    "models[].entrypoint": ("there", "model:Tiny", {}),
    "models[].weights[].file": ("there", "w.bin", {"models[].weights[]": {"sha256": "0" * 64}}),
    "models[].weights[].sha256": ("name", "1" * 64, {"models[].weights[]": {"file": "w.bin"}}),
    "models[].weights[].from": (
        "network", "https://127.0.0.1/w.bin", {"models[].weights[]": {"file": "w.bin", "sha256": "0" * 64}},
    ),
    "models[].weights[].mount": (
        "there", "/mnt/w.bin", {"models[].weights[]": {"file": "w.bin", "sha256": "0" * 64}},
    ),
    "models[].inputs[].name": ("there", "x", {}),
    "models[].outputs[].name": ("there", "y", {}),
    "models[].requirements[]": ("argv", "numpy>=1", {}),
    "models[].options{key}": ("there", "size", {}),
    "models[].options{}": ("there", "big", {}),
    "pools[].name": ("name", "default", {}),
    "pools[].hosts[]": ("decides", "h1", {}),  # a glob over names
    "pools[].models[]": ("name", "tiny", {}),
    "pools[].traffic.session_header": ("network", "x-session", {}),
    "pools[].traffic.tenant_header": ("network", "x-tenant", {}),
    "pools[].scaling.steps[].when": ("decides", "p95_ms > 400", {}),
    "pools[].scaling.schedules[].cron": ("decides", "0 8 * * *", CRON),
    "pools[].scaling.schedules[].at": ("decides", "2030-01-01 08:00", DAY),
    "pools[].scaling.schedules[].on[]": ("decides", "12-25", {"pools[].scaling.schedules[]": {"min_servers": 1}}),
    "pools[].scaling.schedules[].except[]": ("decides", "12-25", CRON),
    "pools[].scaling.schedules[].timezone": ("decides", "Europe/Berlin", CRON),
    "pools[].scaling.schedules[].until": ("decides", "2030-01-02 08:00", DAY),
    "pools[].scaling.holidays[]": ("decides", "12-25", {}),
    "holidays[]": ("decides", "12-25", {}),
    "balancer.listen": ("network", "127.0.0.1:0", {}),
    "balancer.admin": ("network", "127.0.0.1:0", {}),
    "balancer.zone": ("decides", "rack 1", {}),
    "balancer.tls.certificate": ("here", "/tmp/c.pem", {}),
    "balancer.tls.key": ("here", "/tmp/k.pem", {}),
    "balancer.access_log.path": ("here", "/tmp/access.log", {}),
    "controller.state": ("here", "sqlite:///default", {}),
}  # fmt: skip


def texts(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """The path of each text in a block; choices of a fixed list are none."""
    for name, field in model.model_fields.items():
        yield from _texts(field.annotation, f"{path}{field.alias or name}")


def _texts(kind: Any, path: str) -> Iterator[str]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        yield from _texts(inner[0], path)
    elif origin in (typing.Union, types.UnionType):
        for each in inner:
            yield from _texts(each, path)
    elif origin in (tuple, list):
        for each in inner:
            yield from _texts(each, f"{path}[]")
    elif origin is dict:
        yield from _texts(inner[0], f"{path}{{key}}")
        yield from _texts(inner[1], f"{path}{{}}")
    elif isinstance(kind, type) and issubclass(kind, BaseModel):
        yield from texts(kind, f"{path}.")
    elif kind in (str, Path, Any):
        yield path


def test_it_is_said_of_each_text_where_it_goes() -> None:
    found = {path.replace("defaults.", "hosts[].") for path in texts(FleetFile)}
    assert found - set(FIELDS) == set(), "say in FIELDS where these go"
    assert set(FIELDS) - found == set(), "these are no longer in fleet.yaml"


def document(folder: Path) -> dict[str, Any]:
    (folder / "tiny").mkdir(exist_ok=True)
    (folder / "tiny" / "model.py").write_text("class Tiny: ...\n")
    (folder / "tiny" / "w.bin").write_bytes(b"x")
    return {
        "fleet": "test",
        "hosts": [{"name": "h1", "address": "10.0.0.1"}, {"name": "h2", "address": "10.0.0.2"}],
        "models": [{"name": "tiny", "source": "tiny", "entrypoint": "model:Tiny"}],
        "pools": [{"name": "default", "hosts": ["h1", "h2"], "models": ["tiny"]}],
    }


MARK = "@@HERE@@"
_STEP = re.compile(r"(\w+)((?:\[\]|\{key\}|\{\})*)\.?")


def put(within: Any, path: str, value: Any) -> None:
    """Set `path` of a document; lists have one element, and what is missing on the way is made."""
    steps: list[Any] = []
    for name, behind in _STEP.findall(path):
        steps += [name, *re.findall(r"\[\]|\{key\}|\{\}", behind)]
    for number, step in enumerate(steps):
        last = number == len(steps) - 1
        empty: Any = [] if not last and steps[number + 1] == "[]" else {}
        if step == "[]":
            if last and within and not isinstance(within[0], dict):
                within.append(value)
                return
            if not within:
                within.append(empty)
            if last:
                within[0] = value
            within = within[0]
        elif step == "{key}":
            within[value] = "x"
        elif step == "{}":
            within["key"] = value
        elif last:
            within[step] = value
        else:
            within = within.setdefault(step, empty)


def written(folder: Path, path: str, quoted: str) -> Path:
    """A fleet.yaml with `quoted` (a double-quoted text of YAML) as the value of the field."""
    made = document(folder)
    for place, beside in FIELDS[path][2].items():
        put(made, place, copy.deepcopy(beside))
    put(made, path, MARK)
    file = folder / "fleet.yaml"
    text = json.dumps(made, indent=1, ensure_ascii=False).replace(f'"{MARK}"', quoted)
    file.write_text(text, encoding="utf-8")
    return file


def holds(value: Any, text: str) -> bool:
    """Whether `text` stands somewhere in a spec, as it is or as the end of a path."""
    if isinstance(value, dict):
        return any(holds(key, text) or holds(inner, text) for key, inner in value.items())
    if isinstance(value, list | tuple):
        return any(holds(inner, text) for inner in value)
    if isinstance(value, Path):
        return str(value).endswith(str(Path(text))) or Path(text).expanduser() == value
    # names of headers are kept in small letters
    return bool(value == text) or value == text.lower()


def judge(folder: Path, path: str, quoted: str, text: str | None) -> str:
    """ "refused" or "carried"; fails where it is neither."""
    try:
        spec = load(written(folder, path, quoted))
    except SpecError as error:
        assert re.search(r"fleet\.yaml:\d+:\d+: ", str(error)), (path, quoted[:80], str(error)[:300])
        return "refused"
    assert FIELDS[path][0] != "name" or re.fullmatch(r"[\w.:-]+", str(text)), f"{path} took {quoted[:80]}"
    # Nothing at all is, as a path, the folder of the file; a glob becomes the names that it matches.
    if text and path != "pools[].hosts[]":
        assert holds(spec.model_dump(), text), f"{path} took {quoted[:80]} and made something else of it"
    return "carried"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Where fleet.yaml is; also home, so that a payload that ran would leave its canary here."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    assert not list(tmp_path.rglob("canary"))


@pytest.mark.parametrize("path", sorted(FIELDS))
def test_a_good_value_is_taken(path: str, folder: Path) -> None:
    """Or what follows would show nothing."""
    try:
        load(written(folder, path, json.dumps(FIELDS[path][1])))
    except SpecError as error:
        # files that are not there, times that have passed: what is said is not about the text itself
        about = ("no such file", "not there", "does not exist", "is over", "missing", "in the list already")
        assert any(word in str(error) for word in about), error


CASES = [(json.dumps(text, ensure_ascii=False), text) for text in PAYLOADS]
CASES += [(f'"{text}"', None) for text in ESCAPED]


@pytest.mark.parametrize("part", range(4))
def test_hostile_values_are_refused_with_their_line_or_carried(part: int, folder: Path) -> None:
    """A sixth of all pairs, each value and each field among them."""
    for number, path in enumerate(sorted(FIELDS)):
        for quoted, text in CASES[(number + part) % 24 :: 24]:
            judge(folder, path, quoted, text)


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(FIELDS))
def test_every_hostile_value_in_every_field(path: str, folder: Path) -> None:
    told = [judge(folder, path, quoted, text) for quoted, text in CASES]
    assert len(told) >= 60 + len(ESCAPED)
    if FIELDS[path][0] == "name":
        assert told.count("refused") >= 60
