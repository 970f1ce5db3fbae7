"""The forms in which a command that reads hands out its data: a table for people, JSON and YAML for programs."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

import typer


class Form(StrEnum):
    TABLE = "table"
    JSON = "json"
    YAML = "yaml"


Output = Annotated[Form, typer.Option("--output", "-o", help="How to print it.")]


def document(value: Mapping[str, Any], form: Form) -> str:
    """`value` as JSON or YAML text without a final newline. Control characters come out escaped."""
    if form is Form.JSON:
        return json.dumps(value, indent=2, allow_nan=False)
    from ruamel.yaml import YAML  # only `-o yaml` pays for it

    yaml = YAML(typ="safe", pure=True)  # writes null as null, not as nothing
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # ruamel types it as None
    yaml.allow_unicode = False
    yaml.explicit_start = True
    yaml.width = 1000
    stream = io.StringIO()
    yaml.dump(json.loads(json.dumps(value, allow_nan=False)), stream)
    return stream.getvalue().rstrip("\n")


def json_line(value: Mapping[str, Any]) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
