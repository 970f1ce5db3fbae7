"""What pydantic found -> what a person needs: which value, what is wrong with it, what to write instead."""

from __future__ import annotations

import difflib
import math
import re
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from fleet_controller.spec.fleet import FleetFile
from fleet_controller.spec.part import inner
from fleet_controller.spec.problem import Steps, written

MOST_PROBLEMS = 100
# Values under these keys may hold passwords and tokens: never shown.
_QUIET = {"options", "env", "pip_args", "state"}
# What people call things elsewhere.
_OTHER_WORDS = {
    "ip": "address",
    "hostname": "address",
    "host": "address",
    "min": "min_servers",
    "max": "max_servers",
    "min_replicas": "min_servers",
    "max_replicas": "max_servers",
    "min_hosts": "min_servers",
    "max_hosts": "max_servers",
    "username": "user",
    "key": "identity_file",
    "key_file": "identity_file",
    "proxy_jump": "jump",
    "bastion": "jump",
    "memory": "device_memory",
    "gpu_memory": "device_memory",
    "path": "source",
    "class": "entrypoint",
    "batch_size": "max_batch_size",
    "price": "price_per_hour",
    "tags": "labels",
    "rack": "zone",
    "policy": "routing",
    "autoscaling": "scaling",
}
_NO_PASSWORDS = {"password", "passwd", "pass", "passphrase"}


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at `steps`. `key`: point at the key, not the value. `meant`: the likely path."""

    steps: Steps
    message: str
    key: bool = False
    meant: Steps | None = None


def findings(error: ValidationError, model: type[BaseModel], at: Steps) -> Iterator[Finding]:
    """What `error` says about the value at `at` that was read as `model`."""
    found = list(_each(error, model, at))
    likely = {finding.meant for finding in found if finding.key}
    for finding in found:
        if finding.key or finding.meant is None or finding.meant not in likely:  # a typo is not missing too
            yield finding


def _each(error: ValidationError, model: type[BaseModel], at: Steps) -> Iterator[Finding]:
    for number, detail in enumerate(error.errors(include_url=False)):
        loc = tuple(step for step in detail["loc"] if step != "[key]")
        steps = (*at, *loc)
        match detail["type"]:
            case "extra_forbidden" if (
                number >= MOST_PROBLEMS
            ):  # nobody reads so many, and guessing takes time
                yield Finding(steps, "unknown key", key=True)
            case "extra_forbidden":
                message, meant = _unknown_key(str(loc[-1]), fields_at(model, loc[:-1]), steps)
                yield Finding(steps, message, key=True, meant=(*steps[:-1], meant) if meant else None)
            case "missing":
                about = fields_at(model, loc[:-1]).get(str(loc[-1]), "")
                message = f'"{loc[-1]}" is missing; add it ({_lower(about)})'
                yield Finding(steps[:-1], message, meant=steps)
            case _:
                yield Finding(steps, _message(detail, quiet=not _QUIET.isdisjoint(steps)))


def fields_at(model: type[BaseModel], loc: Steps) -> dict[str, str]:
    """The keys of the block at `loc` and what they mean; empty where anything may be written."""
    annotation: Any = model
    for step in loc:
        plain = inner(annotation)
        arguments = typing.get_args(plain)
        if isinstance(step, int):
            annotation = arguments[0] if arguments else None
        elif isinstance(plain, type) and not arguments and issubclass(plain, BaseModel):
            by_key = {(field.alias or name): field.annotation for name, field in plain.model_fields.items()}
            annotation = by_key.get(step)
        else:
            return {}
    plain = inner(annotation)
    if isinstance(plain, type) and not typing.get_args(plain) and issubclass(plain, BaseModel):
        return {(field.alias or name): field.description or "" for name, field in plain.model_fields.items()}
    return {}


def places(model: type[BaseModel] = FleetFile, at: str = "") -> Iterator[tuple[str, str]]:
    """(key, path of its block) for every key of fleet.yaml; lists are written `[]`."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        yield key, at
        plain, listed = inner(field.annotation), False
        if typing.get_origin(plain) is tuple:
            plain, listed = inner(typing.get_args(plain)[0]), True
        if isinstance(plain, type) and not typing.get_args(plain) and issubclass(plain, BaseModel):
            yield from places(plain, f"{at}.{key}".lstrip(".") + ("[]" if listed else ""))


def _unknown_key(key: str, known: dict[str, str], steps: Steps) -> tuple[str, str | None]:
    if key.lower() in _NO_PASSWORDS and "user" in known:
        if "password_file" in known:
            return "unknown key; no password belongs into this file, use password_file or password_env", None
        return "unknown key; passwords are not supported, use identity_file or an SSH agent", None
    plain = key.lower().replace("-", "_")
    near = difflib.get_close_matches(plain, known, 1, 0.8)
    if not near and _OTHER_WORDS.get(plain) in known:
        near = [_OTHER_WORDS[plain]]
    if not near:
        here = re.sub(r"\[\d+\]", "[]", written(steps[:-1]))
        elsewhere = [place for found, place in places() if found == key]
        below = [place for place in elsewhere if place.startswith(f"{here}.")]
        if elsewhere:
            where = [place or "the top of the file" for place in (below or elsewhere)[:2]]
            return f"unknown key here; it belongs under {' or '.join(where)}", None
        near = difflib.get_close_matches(plain, known, 1, 0.6)
    if near:
        return f'unknown key; did you mean "{near[0]}"?', near[0]
    block = f"in {written(steps[:-1])}" if len(steps) > 1 else "at the top"
    return f"unknown key; known {block} are {', '.join(known)}", None


def shown(value: object) -> str:
    """`value` for a message, briefly."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"' if len(value) <= 60 else f'"{value[:60]}..."'
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, float) and not math.isfinite(value):
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    return str(value)[:60]


def _message(detail: ErrorDetails, quiet: bool) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if value is None:
        return "has no value; write one, or remove the key"
    it = "the value" if quiet else shown(value)
    for prefix, wanted in _WANTED:
        if kind.startswith(prefix):
            return f"{it} is not {wanted}"
    match kind:
        case "greater_than":
            return f"{it} is too small; it must be more than {context['gt']:g}"
        case "greater_than_equal":
            return f"{it} is too small; it must be {context['ge']:g} or more"
        case "less_than":
            return f"{it} is too large; it must be less than {context['lt']:g}"
        case "less_than_equal":
            return f"{it} is too large; it must be {context['le']:g} or less"
        case "too_short" | "string_too_short":
            return "is empty; it needs at least one" if kind == "too_short" else "is empty; write something"
        case "literal_error":
            choices = [
                choice.strip("' ") for choice in str(context["expected"]).replace(" or ", ",").split(",")
            ]
            near = difflib.get_close_matches(str(value).replace("-", "_"), choices, 1, 0.5)
            hint = f'did you mean "{near[0]}"?' if near else f"write one of {', '.join(choices)}"
            return f"{it} is not known here; {hint}"
        case "finite_number":
            return f"{it} is not a number that can be used; write a finite one"
        case _:
            return detail["msg"]


_WANTED = (
    ("int_", 'a whole number; write it like "3", without a unit'),
    ("float_", 'a number; write it like "1.5", without a unit'),
    ("bool_", "true or false; write one of them"),
    ("string_type", "text; write one text, not a list or a mapping"),
    ("path_type", "a path; write one text"),
    ("tuple_type", 'a list; write "[A, B]", or one "- A" a line'),
    ("list_type", 'a list; write "[A, B]", or one "- A" a line'),
    ("dict_", 'a mapping; write "KEY: VALUE" lines under it'),
    ("model_", 'a mapping; write "KEY: VALUE" lines under it'),
)


def _lower(text: str) -> str:
    text = text.rstrip(".")
    return f"{text[:1].lower()}{text[1:]}" if text[1:2].islower() else text
