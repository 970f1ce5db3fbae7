"""Plan file: what `fleetctl plan --out` writes and `fleetctl up FILE` takes, and what makes one unusable. PURE."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from fleet_controller.foresight.basis import Basis
from fleet_controller.operation.operation import Change

SCHEMA = "fleetctl/plan/v1"
FAMILY = "fleetctl/plan/"


class BadPlan(Exception):
    """A file that can't be applied; the message says why and what to do."""


@dataclass(frozen=True)
class PlanFile:
    """What of a plan is carried out: each host that changes, within `limit` where it was made with one."""

    basis: Basis
    planned: Mapping[str, Change]
    limit: tuple[str, ...] | None


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """The document with the checksum by which an edited one is known."""
    return {**document, "checksum": _checksum(document)}


def opened(text: str, name: str, fleet: str) -> PlanFile:
    """The plan in `text`, the content of the file `name`, for the fleet of that name. Raises BadPlan."""
    again = f"make a new one: fleetctl plan --out {name}"
    try:
        document = json.loads(text)
    except ValueError as error:
        raise BadPlan(f"{name} is not a whole plan file ({error}); {again}") from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or not schema.startswith(FAMILY):
        raise BadPlan(f"{name} is no plan of fleetctl; {again}")
    if schema != SCHEMA:
        raise BadPlan(
            f"{name} was written by another version of fleetctl ({schema[:40]}; this one reads {SCHEMA}); {again}"
        )
    told = {key: value for key, value in document.items() if key != "checksum"}
    if document.get("checksum") != _checksum(told):
        raise BadPlan(f"{name} was changed after `fleetctl plan` wrote it, and is not applied; {again}")
    if document.get("fleet") != fleet:
        raise BadPlan(f"{name} is a plan for the fleet {document.get('fleet')}, and this is {fleet}; {again}")
    if not document.get("complete"):
        raise BadPlan(f"{name} does not tell all that would be done; use `fleetctl up` with --limit instead")
    try:
        basis = Basis.model_validate(document["basis"])
        planned = {c["host"]: c["action"] for c in document["changes"] if c["action"] != "none"}
    except (ValidationError, KeyError, TypeError) as error:
        raise BadPlan(f"{name} is not a whole plan file ({type(error).__name__}); {again}") from error
    limit = document.get("limit")
    return PlanFile(basis, planned, None if limit is None else tuple(limit))


def _checksum(document: Mapping[str, Any]) -> str:
    """Over the content as JSON, however it is laid out; YAML and JSON of the same plan have the same one."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
