"""Pieces of a configuration: sections, times, and answers that HAProxy gives by itself. PURE."""

from __future__ import annotations

from collections.abc import Iterable

from fleet_wire.refusal import STATUS


def section(title: str, lines: Iterable[str]) -> list[str]:
    return [title, *(f"    {line}" for line in lines)]


def ms(seconds: float) -> str:
    # HAProxy's longest time is 2^31 - 1 milliseconds.
    return f"{max(1, min(2**31 - 1, round(seconds * 1000)))}ms"


def refusal(code: str, message: str, condition: str, retry_after: bool = False) -> str:
    """A rule that answers as the house does. `message` is ours; what is in %[...] is put in by HAProxy, as JSON."""
    status = STATUS[code]
    again = "1" if retry_after else "null"
    body = f'{{"error":{{"code":"{code}","message":"{message}","retry_after_s":{again}}}}}'
    # Within single quotes everything is as it stands, but for the single quote.
    body = body.replace("'", "'\"'\"'")
    header = " hdr retry-after 1" if status in (429, 503) else ""
    header += " hdr connection close" if status == 413 else ""
    header += " hdr www-authenticate Bearer" if status == 401 else ""
    return f"http-request return status {status} content-type application/json lf-string '{body}'{header} {condition}"
