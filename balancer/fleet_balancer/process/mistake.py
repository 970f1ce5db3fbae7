"""What is wrong with a document, as one line for the person who wrote it. PURE."""

from __future__ import annotations

from pydantic import ValidationError
from pydantic_core import ErrorDetails

# How many mistakes are told at once.
MOST = 5


def mistakes(error: ValidationError, whole: str = "the document") -> str:
    """Each with its place: "backends[0].wight: there is no such field". `whole`: what to call the document itself."""
    found = error.errors(include_url=False, include_input=False, include_context=False)
    told = [f"{_place(detail) or whole}: {_said(detail)}" for detail in found[:MOST]]
    if len(found) > MOST:
        told.append(f"and {len(found) - MOST} more")
    return "; ".join(told)


def _place(detail: ErrorDetails) -> str:
    place = ""
    for step in detail["loc"]:
        place += f"[{step}]" if isinstance(step, int) else f".{step}" if place else step
    return place


def _said(detail: ErrorDetails) -> str:
    kind, said = detail["type"], detail["msg"]
    if kind == "extra_forbidden":
        return "there is no such field"
    if kind == "missing":
        return "this field is needed"
    if kind == "json_invalid":
        return said.replace("Invalid JSON", "not JSON")
    said = said.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    for subject in ("Input should", "String should"):
        said = said.replace(subject, "this should")
    return said
