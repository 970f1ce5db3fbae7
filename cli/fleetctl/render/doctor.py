"""What the doctor found, for people: grouped by host, the worst first, what is well in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from fleetctl.render.text import line

MARKS = {
    "problem": ("PROBLEM", "bold red"),
    "warning": ("warning", "yellow"),
    "unknown": ("unknown", "magenta"),
    "ok": ("ok", "green"),
    "skipped": ("skipped", "dim"),
}
QUIET = ("ok", "skipped")
HERE = "this machine"


def page(told: Mapping[str, Any], verbose: bool, offer: bool) -> list[Table | Text | str]:
    """`told` is the JSON form. `verbose`: what is well, too. `offer`: say what --fix would do."""
    groups = [(HERE, "", told["here"])]
    groups += [(host["name"], _seen(host), host["findings"]) for host in told["hosts"]]
    groups.sort(key=lambda group: _rank(group[2]))
    parts: list[Table | Text | str] = []
    for name, seen, findings in groups:
        parts += [*_group(line(name), seen, findings, verbose), ""]
    for mend in told["mended"]:
        parts.append(_mended(mend))
    if told["mended"]:
        parts.append("")
    parts.append(_sum(told))
    mendable = sum(
        1 for _, _, findings in groups for finding in findings if finding["mend"] not in (None, "host-key")
    )
    if offer and mendable:
        parts.append(f"fleetctl doctor --fix does {mendable} of these (those marked *)")
    return parts


def _seen(host: Mapping[str, Any]) -> str:
    state = "" if host["reached"] else ", switched off" if host["off"] else ", not reached"
    return f" ({line(host['address'])}{state})"


def _rank(findings: Iterable[Mapping[str, Any]]) -> int:
    marks = list(MARKS)
    return min((marks.index(finding["severity"]) for finding in findings), default=len(marks))


def _group(
    name: str, seen: str, findings: list[Mapping[str, Any]], verbose: bool
) -> list[Table | Text | str]:
    loud = [finding for finding in findings if verbose or finding["severity"] not in QUIET]
    well = sum(1 for finding in findings if finding["severity"] == "ok")
    title = Text.assemble((name, "bold"), (seen, "dim"))
    if not loud:
        title.append(f": all well ({well} checks)", style="green")
        return [title]
    parts: list[Table | Text | str] = [title]
    for finding in loud:
        word, style = MARKS[finding["severity"]]
        star = "*" if finding["mend"] else ""
        head = Text.assemble(
            "  ", (f"{word:<8}", style), f"{line(finding['check'])}{star}: {line(finding['what'])}"
        )
        parts.append(head)
        for key, label in (("why", "why"), ("fix", "fix")):
            if finding[key]:
                # a plain line, so that a command in it can be copied whole
                parts.append(f"          {label}: {line(finding[key])}")
    hidden = well if not verbose else 0
    if hidden:
        parts.append(Text(f"  {hidden} more checks are well", style="dim"))
    return parts


def _mended(mend: Mapping[str, Any]) -> str:
    where = line(mend["host"]) or HERE
    if mend["failed"]:
        return f"not mended, {where}: {line(mend['failed'])}"
    return f"{'mended' if mend['mended'] else 'done, and still there'}, {where}: {line(mend['said'])}"


def _sum(told: Mapping[str, Any]) -> str:
    counts = told["counts"]
    words = [
        f"{counts[key]} {key}{'' if key in QUIET else 's' if counts[key] != 1 and key != 'unknown' else ''}"
        for key in MARKS
    ]
    return f"{', '.join(words)}; {len(told['hosts'])} hosts in {told['seconds']:.1f} s"
