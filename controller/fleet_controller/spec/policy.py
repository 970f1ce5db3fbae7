"""A scaling block from a file of its own, or from another fleet.yaml: a policy to try."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fleet_controller.spec import document, explain
from fleet_controller.spec.checks import check_scaling
from fleet_controller.spec.draft import Findings
from fleet_controller.spec.loading import load
from fleet_controller.spec.problem import Problem, SpecError
from fleet_controller.spec.scaling import ScalingSpec

KEY = "scaling"


def load_scaling(path: Path, pool: str, content: bytes | None = None) -> ScalingSpec:
    """What `path` says: its `scaling:` block, or that of `pool` where it is a whole fleet.yaml (of its only
    pool, whatever the name). Raises SpecError, with all that is wrong, and UnknownName for a fleet.yaml with
    several pools and none of that name. `content` is read in place of the file.
    """
    read = document.read(path) if content is None else document.parse(content, path)
    value: Any = read.value
    if isinstance(value, dict) and "pools" in value:
        fleet = load(path, content)
        return (fleet.pools[0] if len(fleet.pools) == 1 else fleet.pool(pool)).scaling
    if not isinstance(value, dict) or set(value) != {KEY}:
        message = 'needs "scaling:" at the top and nothing beside it, or a whole fleet.yaml'
        raise SpecError([Problem(message, *read.spot(()))], path)
    found = Findings(read)
    try:
        scaling = ScalingSpec.model_validate(value[KEY] or {}, by_alias=True, by_name=False)
    except ValidationError as error:
        for finding in explain.findings(error, ScalingSpec, (KEY,)):
            found.note(finding)
        raise SpecError(found.problems(), path) from None
    check_scaling(scaling, (KEY,), found)
    if found.any:
        raise SpecError(found.problems(), path)
    return scaling
