"""The JSON Schema of fleet.yaml as a person writes it: for editors, and for other programs that write one."""

from __future__ import annotations

from typing import Any

from fleet_controller.spec.fleet import FleetFile

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def json_schema() -> dict[str, Any]:
    """What can be said about a fleet.yaml without reading it whole; `load` checks the rest."""
    schema = FleetFile.model_json_schema(by_alias=True)
    for block in (schema, *schema.get("$defs", {}).values()):
        for described in block.get("properties", {}).values():
            _without_own_words(described)
    schema.pop("title", None)
    return {"$schema": DIALECT, "title": "fleet.yaml", **schema}


def _without_own_words(described: dict[str, Any]) -> None:
    """Titles made of key names say nothing, and a block's default is that of each key in it."""
    described.pop("title", None)
    if isinstance(described.get("default"), dict | list) or described.get("default", ...) is None:
        described.pop("default", None)
