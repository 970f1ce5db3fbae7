"""Which wheels an environment is made of, each pinned by its sha256. PURE.

pip weighs the conditions of requirements ("; python_version < '3.12'") for the Python that it runs with itself, also
where it chooses for another. So what it chose is gone through once more here, for the target.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from fleet_controller.hosts.install.target import Target, parse

SCHEMA = "fleetctl/wheels/v1"


@dataclass(frozen=True, order=True)
class Wheel:
    """One wheel. `requires` are its own requirements, as its METADATA has them."""

    name: str
    version: str
    file: str
    size: int
    sha256: str
    requires: tuple[str, ...] = ()


@dataclass(frozen=True)
class Lock:
    """All wheels that `target` needs for `wanted`."""

    target: Target
    wanted: tuple[str, ...]
    wheels: tuple[Wheel, ...]

    @property
    def key(self) -> str:
        """Names the environment that is made of these wheels."""
        digest = hashlib.sha256(str(self.target.python).encode())
        for wheel in sorted(self.wheels):
            digest.update(f"{wheel.file}\0{wheel.sha256}\n".encode())
        return digest.hexdigest()[:16]

    @property
    def size(self) -> int:
        """Bytes of all wheels."""
        return sum(wheel.size for wheel in self.wheels)

    def text(self) -> str:
        wheels = [asdict(wheel) for wheel in sorted(self.wheels)]
        value = {"schema": SCHEMA, "target": str(self.target), "wanted": self.wanted, "wheels": wheels}
        return json.dumps(value, indent=1) + "\n"


def read(text: str) -> Lock:
    """Raises ValueError for anything that `Lock.text` did not write."""
    try:
        value: dict[str, Any] = json.loads(text)
        if value["schema"] != SCHEMA:
            raise ValueError(f"its schema is {value['schema']!r}, not {SCHEMA}")
        wheels = tuple(Wheel(**{**wheel, "requires": tuple(wheel["requires"])}) for wheel in value["wheels"])
        return Lock(parse(value["target"]), tuple(value["wanted"]), wheels)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a list of wheels: {error!r}") from error


def lacking(wheels: Iterable[Wheel], wanted: Sequence[str], target: Target) -> list[str]:
    """Requirements that hold on `target` and that no wheel meets: what pip left out."""
    return sorted({str(need) for need in _walk(wheels, wanted, target)[1]})


def needed(wheels: Iterable[Wheel], wanted: Sequence[str], target: Target) -> list[Wheel]:
    """The wheels that `target` needs; without those that pip took for a condition that does not hold there."""
    return sorted(_walk(wheels, wanted, target)[0])


def _walk(
    wheels: Iterable[Wheel], wanted: Sequence[str], target: Target
) -> tuple[set[Wheel], list[Requirement]]:
    by_name = {canonicalize_name(wheel.name): wheel for wheel in wheels}
    open_needs = [Requirement(text) for text in wanted]
    met: set[tuple[str, frozenset[str]]] = set()
    found: set[Wheel] = set()
    missing: list[Requirement] = []
    base = target.markers()
    while open_needs:
        need = open_needs.pop()
        if need.marker is not None and not need.marker.evaluate({**base, "extra": ""}):
            continue
        known = canonicalize_name(need.name), frozenset(need.extras)
        if known in met:
            continue
        met.add(known)
        wheel = by_name.get(known[0])
        if wheel is None:
            missing.append(_bare(need))
            continue
        found.add(wheel)
        open_needs += _of(wheel, need.extras, base)
    return found, missing


def _of(wheel: Wheel, extras: Iterable[str], base: Mapping[str, str]) -> list[Requirement]:
    """What this wheel asks for with these extras."""
    result = []
    for text in wheel.requires:
        try:
            need = Requirement(text)
        except InvalidRequirement:
            continue  # pip has chosen without it too
        holds = need.marker is None or any(
            need.marker.evaluate({**base, "extra": extra}) for extra in ("", *extras)
        )
        if holds:
            need.marker = None
            result.append(need)
    return result


def _bare(need: Requirement) -> Requirement:
    """Without its condition, which pip would weigh for itself again."""
    copy = Requirement(str(need))
    copy.marker = None
    return copy
