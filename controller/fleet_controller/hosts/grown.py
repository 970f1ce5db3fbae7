"""Lines of a log, and how to go on from there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Grown:
    """Lines that are safe to print, and the cursor behind them. `lost`: some before them are gone.

    `utc_offset_s` is the writer's own, by which the times in the lines are to be read.
    """

    lines: list[str]
    cursor: str
    lost: bool
    utc_offset_s: int
