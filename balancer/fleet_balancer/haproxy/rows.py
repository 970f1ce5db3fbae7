"""HAProxy's "show stat": what each server has in flight and what its health checks found. PURE."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass

BACKEND = "BACKEND"
NOT_YET = "not probed yet"


@dataclass(frozen=True, slots=True)
class Row:
    """One server, or (name BACKEND) a pool. `up`: it passes its checks. `error` says why it does not."""

    pool: str
    name: str
    in_flight: int
    queued: int
    up: bool
    error: str | None


def read_rows(text: str, timeout_s: float) -> list[Row]:
    """The rows of servers and backends. `timeout_s` is that of a check, for the wording."""
    rows = csv.DictReader(io.StringIO(text.removeprefix("# ")))
    return [
        Row(
            row["pxname"],
            row["svname"],
            int(row["scur"] or 0),
            int(row["qcur"] or 0),
            row["status"].startswith(("UP", "DRAIN", "NOLB", "no check")),
            None if row["svname"] == BACKEND else _error(row, timeout_s),
        )
        for row in rows
        if row.get("svname") not in (None, "", "FRONTEND")
    ]


def _error(row: dict[str, str], timeout_s: float) -> str | None:
    kind = row.get("check_status", "").removeprefix("* ")
    if kind in ("L7OK", "L7OKC", "L4OK", "L6OK", ""):
        return None
    if kind == "INI":
        return NOT_YET
    if kind == "L7STS":
        return f"/readyz answered {row.get('check_code', '')}"
    if kind in ("L7TOUT", "L6TOUT"):
        return f"/readyz gave no answer within {timeout_s:g} s"
    if kind == "HANA":
        return "connect failed: a request found nobody listening"
    said = row.get("last_chk") or row.get("check_desc") or kind
    if kind in ("L4CON", "L4TOUT", "SOCKERR"):
        return f"connect failed: {said}"
    return f"/readyz: {said}"
