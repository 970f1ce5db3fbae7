"""What the doctor says of one thing. PURE."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """problem: a start would fail, or what runs is in danger. unknown: it could not be looked at, so it is not well.
    skipped: it does not apply here."""

    PROBLEM = "problem"
    WARNING = "warning"
    UNKNOWN = "unknown"
    OK = "ok"
    SKIPPED = "skipped"


WORST_FIRST = tuple(Severity)


@dataclass(frozen=True)
class Finding:
    """`check` is a word for programs, `what` a sentence, `why` what comes of it, `fix` what to do: a command to copy
    where there is one. `mend` is the name of the mend with which --fix does it; None: it is the operator's to do."""

    check: str
    severity: Severity
    what: str
    why: str = ""
    fix: str = ""
    mend: str | None = None


def problem(check: str, what: str, why: str, fix: str, mend: str | None = None) -> Finding:
    return Finding(check, Severity.PROBLEM, what, why, fix, mend)


def warning(check: str, what: str, why: str, fix: str, mend: str | None = None) -> Finding:
    return Finding(check, Severity.WARNING, what, why, fix, mend)


def unknown(check: str, what: str, fix: str = "") -> Finding:
    return Finding(check, Severity.UNKNOWN, what, "", fix)


def well(check: str, what: str) -> Finding:
    return Finding(check, Severity.OK, what)


def skipped(check: str, what: str) -> Finding:
    return Finding(check, Severity.SKIPPED, what)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    return sorted(findings, key=lambda finding: WORST_FIRST.index(finding.severity))
