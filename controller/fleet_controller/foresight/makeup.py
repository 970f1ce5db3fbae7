"""Makeup: what a release is made of, so that two of them can be told apart in words. PURE.

A release's key is a hash: it says that something differs, and not what.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from fleet_controller.spec import ModelSpec

UNKNOWN = "not known what differs: the release that runs there was installed by another fleetctl"


class Part(Protocol):
    """A file of a release."""

    @property
    def path(self) -> str: ...
    @property
    def sha256(self) -> str: ...


class ModelMakeup(BaseModel):
    """A model in a release: what fleet.yaml calls its version, and digests of its files and of its settings."""

    model_config = ConfigDict(frozen=True)

    version: str
    content: str
    settings: str


class Makeup(BaseModel):
    """`agent` and `environment` are digests: of fleetctl's own files there, and of what pip is asked to install."""

    model_config = ConfigDict(frozen=True)

    agent: str
    environment: str
    models: Mapping[str, ModelMakeup] = {}


def makeup(files: Iterable[Part], requirements: Iterable[str], models: Iterable[ModelSpec]) -> Makeup:
    """What a release with these files and requirements is made of; `models` are those that it is for."""
    rest: list[Part] = []
    of: dict[str, list[Part]] = {}
    for file in files:
        top, _, below = file.path.partition("/")
        if top == "models":
            of.setdefault(below.partition("/")[0], []).append(file)
        else:
            rest.append(file)
    wishes = [f for parts in of.values() for f in parts if f.path.endswith("/requirements.txt")]
    return Makeup(
        agent=_digest(f"{f.path} {f.sha256}" for f in rest),
        environment=_digest([*sorted(requirements), *(f.sha256 for f in wishes)]),
        models={
            model.name: ModelMakeup(
                version=model.version,
                content=_digest(f"{f.path} {f.sha256}" for f in of.get(model.name, ())),
                settings=_digest([model.model_dump_json(exclude={"source", "requirements", "version"})]),
            )
            for model in models
        },
    )


def differences(before: Makeup | None, after: Makeup) -> list[str]:
    """What differs, a few words each. `before` None: nobody kept what it was made of."""
    if before is None:
        return [UNKNOWN]
    found = []
    if before.agent != after.agent:
        found.append("agent code")
    for name in sorted(before.models.keys() | after.models.keys()):
        old, new = before.models.get(name), after.models.get(name)
        if old is None or new is None:
            found.append(f"model {name}: {'added' if old is None else 'removed'}")
            continue
        if old.version != new.version:
            found.append(f"model {name}: version {old.version} -> {new.version}")
        if old.content != new.content:
            found.append(f"model {name}: content")
        if old.settings != new.settings:
            found.append(f"model {name}: settings")
    if before.environment != after.environment:
        found.append("environment")
    return found


def _digest(texts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]
