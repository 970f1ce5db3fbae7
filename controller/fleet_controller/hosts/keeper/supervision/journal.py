"""The agent's output where systemd has it: in the journal. Read as growth.Growth reads a file."""

from __future__ import annotations

import shutil

from fleet_controller.hosts.keeper.elevation import PATH, Elevation, done
from fleet_controller.hosts.keeper.speech import Trouble

SECONDS = 30.0
MARK = "-- cursor: "
# The most lines of one answer, and bytes.
MOST_LINES = 10_000
MOST = 1024 * 1024


class Journal:
    """Of one unit. `root` None: of a user's own systemd.

    Some journals may be read by root and the group systemd-journal only; root is tried where this user sees nothing.
    """

    def __init__(self, unit: str, root: Elevation | None) -> None:
        self._unit = unit
        self._root = root

    def end(self, lines: int) -> tuple[list[str], str]:
        """The last lines and the cursor behind them; "" where there are none yet."""
        told, cursor = self._read("--lines", str(min(max(lines, 1), MOST_LINES)))
        return (told[-lines:] if lines > 0 else []), cursor

    def after(self, cursor: str) -> tuple[list[str], str, bool]:
        """Lines behind the cursor, and the cursor behind those. What the journal dropped is not told: never `lost`."""
        words = ["--after-cursor", cursor] if cursor else ["--lines", str(MOST_LINES)]
        told, behind = self._read(*words)
        return told, behind or cursor, False

    def _read(self, *words: str) -> tuple[list[str], str]:
        which = ["--user-unit"] if self._root is None else ["--unit"]
        program = shutil.which("journalctl", path=PATH) or "journalctl"
        argv = [
            program,
            "--quiet",
            "--no-pager",
            "--output",
            "cat",
            "--show-cursor",
            *which,
            self._unit,
            *words,
        ]
        result = done(argv, b"", SECONDS)
        if self._root is not None and not result.stdout.strip():
            try:
                result = self._root.run(argv, SECONDS)
            except Trouble:
                pass  # without root it is what this user may see: nothing
        lines = result.stdout[-MOST:].decode("utf-8", "replace").split("\n")
        cursor = ""
        while lines and (not lines[-1] or lines[-1].startswith(MARK)):
            last = lines.pop()
            cursor = last[len(MARK) :].strip() if last.startswith(MARK) else cursor
        return lines, cursor
