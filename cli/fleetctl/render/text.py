"""Text for a person: untrusted words made safe for a terminal, and figures in units people read. No I/O, no rich."""

from __future__ import annotations

import re
import unicodedata
from datetime import UTC, datetime

# CSI, OSC (ended by BEL or ST) and two-character escape sequences (ECMA-48)
_ESCAPE = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?", re.DOTALL)
# characters that reorder what is shown (Unicode TR36 "bidirectional text spoofing")
_BIDI = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    """`text` without escape sequences and control characters; newline and tab stay."""
    plain = _ESCAPE.sub("", text.replace("\r\n", "\n"))
    return "".join(c for c in plain if c in "\n\t" or (unicodedata.category(c) != "Cc" and c not in _BIDI))


def line(value: object) -> str:
    """Any value as one safe line; None is empty."""
    return "" if value is None else " ".join(clean(str(value)).split())


def age(seconds: float | None) -> str:
    """A span of time in its two largest units at most: 4s, 3m20s, 2h5m, 3d4h. Unknown is "-"."""
    if seconds is None:
        return "-"
    left = max(0, int(seconds))
    if left < 60:
        return f"{left}s"
    for big, small, size in (("d", "h", 86400), ("h", "m", 3600), ("m", "s", 60)):
        if left >= size:
            rest = left % size // {86400: 3600, 3600: 60, 60: 1}[size]
            return f"{left // size}{big}{rest}{small}" if rest else f"{left // size}{big}"
    return f"{left}s"


def clock(at: float) -> str:
    """A Unix time as local date and time with its offset from UTC, to the second."""
    moment = datetime.fromtimestamp(at, UTC).astimezone()
    return moment.strftime("%Y-%m-%d %H:%M:%S%z")


def number(value: float | int | None) -> str:
    """Whole from 100 on, one decimal from 1, two below; unknown is "-"."""
    if value is None:
        return "-"
    if value == int(value) or abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.1f}" if abs(value) >= 1 else f"{value:.2f}"


def size(value: int | None) -> str:
    """Bytes in binary units; unknown is "-"."""
    if value is None:
        return "-"
    amount = float(value)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{number(round(amount, 1))} {unit}"
        amount /= 1024
    return f"{number(round(amount, 1))} TiB"
