"""The end of the agent's log."""

from __future__ import annotations

from fleet_controller.hosts.keeper.place import Place

TAIL_LIMIT = 1024 * 1024


def text_tail(path: str, lines: int) -> str:
    try:
        with open(path, "rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_LIMIT))
            text = file.read(TAIL_LIMIT).decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:]) if lines > 0 else ""


def last_words(place: Place) -> str:
    return " / ".join(text_tail(place.log, 8).splitlines())[-1200:] or "none"
