"""fleet.yaml, what `fleetctl init` writes and docs/fleet-yaml.md can't fall behind the models.

FLEET_UPDATE=1 writes fleet.yaml and docs/fleet-yaml.md anew.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from fleet_controller.spec import SpecError, init_files, init_text, json_schema, load
from fleet_controller.spec.explain import places
from fleet_controller.spec.template import FirstModel

ROOT = Path(__file__).parents[3]
FLEET = ROOT / "fleet.yaml"
REFERENCE = ROOT / "docs" / "fleet-yaml.md"
SAMPLES = sorted((ROOT / "examples" / "fleets").glob("*.yaml"))
MINILM = FirstModel(
    name="minilm",
    source="examples/minilm",
    entrypoint="model:MiniLM",
    about="Sentence embeddings: 384 numbers for a text (all-MiniLM-L6-v2; its weights come with pip).",
)


def switched_on(text: str) -> str:
    """`text` with every line that is turned off by a "#" turned on."""
    return re.sub(r"(?m)^( *)#(?=(  )*[-\"\w])", r"\1", text)


def plain(path: Path) -> Any:
    return YAML(typ="safe", pure=True).load(path.read_text())


def compare(path: Path, text: str) -> None:
    if os.environ.get("FLEET_UPDATE"):
        path.write_text(text)
    assert path.read_text() == text


def test_the_fleet_of_the_repository_is_the_example() -> None:
    compare(FLEET, init_text("demo", MINILM))
    spec = load(FLEET)
    assert [host.is_local for host in spec.hosts] == [True] * 3
    scaling = spec.pool("default").scaling
    assert (scaling.min_servers, scaling.max_servers, scaling.target_utilization) == (1, 3, 0.7)
    assert scaling.latency is not None and scaling.latency.percentile == 95


def test_every_key_is_in_the_example() -> None:
    text = FLEET.read_text()
    missing = {key for key, _ in places() if not re.search(rf'(?m)(^|[\s#{{,-]|"){key}"?: ?', text)}
    assert not missing


def test_the_lines_that_are_turned_off_are_right_too(tmp_path: Path) -> None:
    for name, text in init_files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(switched_on(text) if name == "fleet.yaml" else text)
    (tmp_path / "models/hello/model.safetensors").touch()
    (tmp_path / "tls").mkdir()
    for name in ("certificate.pem", "key.pem"):
        (tmp_path / "tls" / name).touch()
    loaded = plain(tmp_path / "fleet.yaml")
    spec = load(tmp_path / "fleet.yaml")
    assert len(spec.hosts) == 3 + 16 + 1 + 5
    written = set(keys(loaded))
    assert {key for key, _ in places()} <= written


def keys(tree: Any) -> Iterator[str]:
    if isinstance(tree, dict):
        for key, value in tree.items():
            yield key
            yield from keys(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from keys(value)


def test_what_init_writes_is_a_fleet_whose_model_answers(tmp_path: Path) -> None:
    files = init_files("mine")
    assert set(files) == {"fleet.yaml", "models/hello/model.py"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    spec = load(tmp_path / "fleet.yaml")
    assert spec.fleet == "mine"
    torch = pytest.importorskip("torch")
    source = spec.models[0].source / f"{spec.models[0].module}.py"
    found = importlib.util.spec_from_file_location("hello_model", source)
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    model = getattr(module, spec.models[0].class_name)()
    model.load(torch.device("cpu"), dict(spec.models[0].options))
    rows = model.forward(model.preprocess([*model.warmup(), "another", "hello", "gr\u00fc\u00dfe" * 50]))
    assert tuple(rows.shape) == (4, 8)
    assert torch.equal(rows[0], rows[2]) and not torch.equal(rows[0], rows[1])
    with pytest.raises(ValueError, match="each instance is a text"):
        model.preprocess(["fine", 3])


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_samples_load(path: Path) -> None:
    assert load(path).pools


def test_there_are_samples() -> None:
    assert {path.stem for path in SAMPLES} >= {"local", "ssh", "vms-with-power"}


@functools.cache
def validator() -> jsonschema.Draft202012Validator:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("path", [FLEET, *SAMPLES], ids=lambda path: path.stem)
def test_the_json_schema_takes_what_load_takes(path: Path) -> None:
    assert list(validator().iter_errors(plain(path))) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.update(hots=[]),
        lambda tree: tree["hosts"][0].update(adress="local"),
        lambda tree: tree["pools"][0]["scaling"].update(min_servers="one"),
        lambda tree: tree["pools"][0]["scaling"].update(target_utilization=60),
        lambda tree: tree["pools"][0]["scaling"]["cooldown"].update(scale_up="30sec"),
        lambda tree: tree["balancer"].update(routing="fastest"),
        lambda tree: tree["balancer"].update(keys="on"),
        lambda tree: tree["balancer"].update(tls={"certificate": "c.pem"}),
        lambda tree: tree["balancer"].update(access_log={"path": "-", "sample": 50}),
        lambda tree: tree["balancer"].update(limits={"head": "32 kB"}),
        lambda tree: tree["pools"][0].update(traffic={"retry": "always"}),
        lambda tree: tree["models"][0].update(device_memory="2G"),
        lambda tree: tree["models"][0].update(device_memory_bytes=2),
        lambda tree: tree.pop("pools"),
        lambda tree: tree["pools"][0].update(hosts=[]),
    ],
)  # fmt: skip
def test_the_json_schema_refuses_what_load_refuses(change: Any, tmp_path: Path) -> None:
    tree = plain(FLEET)
    change(tree)
    assert list(validator().iter_errors(tree))
    path = tmp_path / "fleet.yaml"
    path.write_text(json.dumps(tree))
    with pytest.raises(SpecError):
        load(path)


def test_the_json_schema_explains_every_key() -> None:
    schema = json_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert "$id" not in schema
    silent = [
        f"{name}.{key}"
        for name, block in (("", schema), *schema["$defs"].items())
        for key, described in block["properties"].items()
        if not described.get("description")
    ]
    assert not silent
    assert str(Path.home()) not in json.dumps(schema)


def test_the_reference_is_what_the_models_say() -> None:
    compare(REFERENCE, reference())


def reference() -> str:
    """docs/fleet-yaml.md: each block of the JSON Schema as a table."""
    schema = json_schema()
    lines = [
        "# fleet.yaml",
        "",
        "Every key, in the order in which they stand in the file. This page is written from the code",
        "(`FLEET_UPDATE=1 pytest tests/controller/spec`); [fleet.yaml](../fleet.yaml) shows each key in its place,",
        "[examples/fleets](../examples/fleets) holds whole files, and `fleetctl config schema` prints the JSON Schema",
        "for editors. `fleetctl validate` checks a file and tells all that is wrong with it, line by line.",
        "",
        "- Durations: `250ms`, `30s`, `5m`, `1h30m`, `2d`; a bare number counts seconds.",
        "- Memory: `512MiB`, `8GiB`, `40GB`; a bare number counts bytes.",
        "- Names: letters, digits, `.`, `_` and `-`, a letter or digit first, 63 characters at most.",
        "- Ranges: `gpu-[01:16]`, `10.0.1.[11:26]`, `n[1,3,8:10]`; several in one text multiply; 10,000 hosts at most.",
        "- Paths: `~` is your home; what does not start at `/` starts at the folder of the file.",
        "- YAML 1.2: `on`, `off`, `yes` and `no` are texts, `true` and `false` are not. One document, 1 MiB at most.",
        "",
    ]
    lines += _block("the top of the file", schema, schema)
    return "\n".join(lines).rstrip() + "\n"


def _block(path: str, block: dict[str, Any], schema: dict[str, Any]) -> list[str]:
    lines = [f"## {path}", "", block["description"].replace("\n", " "), ""]
    lines += ["| key | value | default | meaning |", "|---|---|---|---|"]
    below: list[str] = []
    for key, described in block["properties"].items():
        kind, inside, listed = _kind(described, schema)
        if "default" in described:
            default = f"`{json.dumps(described['default'])}`".replace("|", "\\|")
        else:
            default = "**required**" if key in block.get("required", ()) else ""
        meaning = described["description"].replace("|", "\\|")
        lines.append(f"| `{key}` | {kind} | {default} | {meaning} |".replace("|  |", "| |"))
        if inside is not None:
            top = "" if path == "the top of the file" else f"{path}."
            below += _block(f"{top}{key}{'[]' if listed else ''}", inside, schema)
    return [*lines, "", *below]


def _kind(described: dict[str, Any], schema: dict[str, Any]) -> tuple[str, dict[str, Any] | None, bool]:
    options = [option for option in described.get("anyOf", [described]) if option.get("type") != "null"]
    if options[0].get("description") in ("seconds", "bytes"):
        return ("duration" if options[0]["description"] == "seconds" else "memory"), None, False
    option = options[0]
    if "$ref" in option:
        return "block", schema["$defs"][option["$ref"].rpartition("/")[2]], False
    if "enum" in option:
        return " or ".join(f"`{choice}`" for choice in option["enum"]), None, False
    kind = option.get("type", "value")
    if kind == "array":
        name, inside, _ = _kind(option["items"], schema)
        return f"list of {name}s", inside, True
    if kind == "object":
        return "`KEY: VALUE`", None, False
    kind = kind if isinstance(kind, str) else "string"
    return (
        {"integer": "whole number", "boolean": "true or false", "string": "text"}.get(kind, kind),
        None,
        False,
    )
