"""What HAProxy looks up while it works: models, keys, tokens, and names for people. PURE.

Each map is a file in HAProxy's folder, and is replaced whole by the runtime API when it changes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping

from fleet_balancer.haproxy.door import RATE_WINDOW_S
from fleet_wire.balancer import ApiKey

MODELS, TEXTS, TOKENS, KEYS, RATES, ALLOWED = (
    "models.map",
    "texts.map",
    "tokens.map",
    "keys.map",
    "rates.map",
    "allowed.map",
)
ALL = (MODELS, TEXTS, TOKENS, KEYS, RATES, ALLOWED)
_KEY = re.compile(r"[\x21-\x7e]{1,256}")
_VALUE = re.compile(r"[\x20-\x7e]{1,8192}")

Map = Mapping[str, str]


def checked(entries: Map, what: str) -> dict[str, str]:
    """Entries as they may stand in a map. Raises ValueError for a name that can't, with `what` it is."""
    for key, value in entries.items():
        if not _KEY.fullmatch(key) or key.startswith("#"):
            raise ValueError(
                f"{what} {key!r:.200}: engine haproxy takes 1 to 256 visible ASCII characters, the first not #"
            )
        if not _VALUE.fullmatch(value) or value != value.strip():
            raise ValueError(
                f"{what} {key!r:.200}: its value is not printable ASCII of at most 8192 characters"
            )
    return dict(entries)


def shown(text: str) -> str:
    """A name for people, inside JSON: what is not printable ASCII is escaped. At most 200 characters."""
    return json.dumps(text[:200])[1:-1].strip() or "-"


def file_text(entries: Map) -> str:
    return "".join(f"{key} {value}\n" for key, value in entries.items())


def key_maps(keys: list[ApiKey] | None, pools: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """KEYS, RATES and ALLOWED. `pools`: names and HAProxy's ids. A key is known as k0, k1... from here on."""
    digests: dict[str, str] = {}
    rates: dict[str, str] = {}
    allowed: dict[str, str] = {}
    for number, key in enumerate(keys or ()):
        name = f"k{number}"
        digests[key.sha256] = name
        if key.rate_per_s is not None:
            most = max(math.ceil(key.rate_per_s * RATE_WINDOW_S), key.burst or 1)
            rates[name] = str(min(most, 2**31 - 1))
        for pool, pool_id in pools.items():
            if not key.pools or pool in key.pools:
                allowed[f"{name}/{pool_id}"] = "1"
    return {KEYS: digests, RATES: rates, ALLOWED: allowed}
