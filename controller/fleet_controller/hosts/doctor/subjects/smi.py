"""What nvidia-smi said, as values: its tables, and the sentences with which it fails. PURE.

Formats: `nvidia-smi --help-query-gpu`, -compute-apps, -remapped-rows; exit codes: its manual page, "RETURN VALUE".
A cell may be [N/A], [Not Supported], [Unknown Error] or [GPU requires reset]: all of these are not known. The text is a
stranger's: any of it may be missing, of another shape, or made to look like something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fleet_controller.hosts.doctor.facts import Fact, items, text

# Of rows that are looked at: no machine has more devices, or as many strangers as are worth naming.
MOST_ROWS = 64


@dataclass(frozen=True)
class Row:
    """One line of a table. `raw` has its cells by the name of the field."""

    raw: dict[str, str]

    def text(self, field: str) -> str:
        """ "" where it is not known."""
        cell = self.raw.get(field, "")
        return "" if cell.startswith("[") or cell in ("N/A", "") else cell

    def number(self, field: str) -> float | None:
        cell = self.text(field).split()[:1]
        return float(cell[0]) if cell and re.fullmatch(r"\d{1,12}(\.\d{1,6})?", cell[0], re.ASCII) else None

    def yes(self, field: str) -> bool | None:
        """None where it is not known."""
        word = self.text(field).lower()
        if word in ("yes", "active", "enabled", "pending", "1"):
            return True
        return False if word in ("no", "not active", "disabled", "0") else None

    def unsupported(self, field: str) -> bool:
        """This device has no such thing; different from not knowing it."""
        return self.raw.get(field, "[N/A]").strip("[]") in ("N/A", "Not Supported")

    @property
    def needs_reset(self) -> bool:
        return any("requires reset" in cell.lower() for cell in self.raw.values())


def table(fact: Fact) -> list[Row]:
    """The rows of a fact that is a query of nvidia-smi; none where it failed. Lines of another width are left out."""
    if fact.number("status") != 0:
        return []
    fields = [text(field) for field in items(fact.value.get("fields"))]
    said = fact.value.get("out")
    rows = []
    for line in said.splitlines()[: 4 * MOST_ROWS] if isinstance(said, str) else ():
        cells = [text(cell.strip(), 200) for cell in line.split(",", max(0, len(fields) - 1))]
        if fields and len(cells) == len(fields):
            rows.append(Row(dict(zip(fields, cells, strict=True))))
    return rows[:MOST_ROWS]


def complaint(fact: Fact) -> str:
    """Why a query has no table: nvidia-smi's own words; "" where it has one."""
    if fact.missing:
        return f"nvidia-smi: {fact.missing}"
    if fact.yes("missing"):
        return "nvidia-smi is not installed"
    status = fact.number("status")
    if status == 0:
        return ""
    said = text(fact.value.get("err")) or text(fact.value.get("out"))
    return (
        f"nvidia-smi says: {said}"
        if said
        else f"nvidia-smi ended with status {status or 0:.0f} and said nothing"
    )


def mismatch(said: str) -> bool:
    """The kernel has the module of one driver, the library is of another: after an update without a reboot."""
    return "driver/library version mismatch" in said.lower()


def no_driver(said: str) -> bool:
    return "couldn't communicate with the nvidia driver" in said.lower()


def lost(said: str) -> bool:
    """A device is on the bus and does not answer."""
    words = said.lower()
    return "gpu is lost" in words or "unable to determine the device handle" in words
