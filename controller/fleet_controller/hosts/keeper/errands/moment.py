"""Errand: what time it is here. As short as can be: the caller takes half of the way there and back for its error."""

from __future__ import annotations

import time
from typing import Any


def errand(_args: dict[str, Any]) -> dict[str, Any]:
    return {"now": time.time()}
