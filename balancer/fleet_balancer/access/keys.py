"""API keys: who may send requests, how many a second, and to which pools. PURE.

A key is 256 random bits, so its plain SHA-256 is as good as a slow hash: there is nothing to guess. A key is found by
its digest in a dict, so how long that takes says nothing about any other key. Rates are kept by GCRA (ITU-T I.371): one
number for a key, the time at which its next request would be due; processes that share the numbers share the rates.
"""

from __future__ import annotations

import hashlib
import math
from array import array
from collections import Counter
from collections.abc import Iterable, MutableSequence
from dataclasses import dataclass, field

from fleet_balancer.ask import Ask
from fleet_wire.balancer import ApiKey
from fleet_wire.refusal import Refusal

# How many numbers a keyring's rates take: a shared-memory `slots` is that many doubles, zero at first.
SLOTS = 65536
# Header lines that were good before are known by their bytes: at most this many, of at most this many bytes.
_SEEN_KEPT = 4096
_LINE_KEPT = 256
_HOW = "send it as the header Authorization: Bearer KEY, or x-api-key: KEY"


@dataclass(frozen=True, slots=True)
class KeyUse:
    """Whose request it is. `share` is the weight in the fair queue; `pools` None: all of them.

    `ask` is what a request says about itself that says nothing else: the same one for all of them.
    """

    name: str
    share: float = 1.0
    pools: frozenset[str] | None = None
    ask: Ask = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ask", Ask(self.name, key=self.name, share=self.share))

    def allow(self, pool: str) -> None:
        """Raises Refusal (forbidden) where this key is not for `pool`."""
        if self.pools is not None and pool not in self.pools:
            raise Refusal("forbidden", f"the API key {self.name} is not for pool {pool}")


@dataclass(frozen=True, slots=True)
class _Held:
    """A key and its rate: seconds between two requests (0: no limit), and how many seconds ahead it may be."""

    use: KeyUse
    slot: int
    interval: float
    room: float


def new_slots() -> MutableSequence[float]:
    """The rates of one process that shares them with nobody."""
    return array("d", bytes(8 * SLOTS))


class Keyring:
    """The keys in force. Raises Refusal (bad_request) for keys that contradict each other.

    A key keeps its number in `slots` over a new list of keys, so that a change gives nobody a second burst. `refused`
    counts whom it turned away, by name ("" for the unknown), over every list too.
    """

    def __init__(
        self,
        keys: Iterable[ApiKey],
        slots: MutableSequence[float] | None = None,
        refused: Counter[str] | None = None,
    ) -> None:
        self._slots = new_slots() if slots is None else slots
        self.refused: Counter[str] = Counter() if refused is None else refused
        self._by_digest: dict[str, _Held] = {}
        self._seen: dict[bytes, _Held] = {}
        names: set[str] = set()
        taken: set[int] = set()
        # By digest, not as listed: each process that is told of the same keys gives them the same slots.
        for key in sorted(keys, key=lambda k: k.sha256):
            if key.name in names:
                raise Refusal("bad_request", f"API key {key.name} is listed twice")
            if key.sha256 in self._by_digest:
                raise Refusal("bad_request", f"API key {key.name} is the same key as another one")
            if key.burst is not None and key.rate_per_s is None:
                raise Refusal("bad_request", f"API key {key.name} has a burst but no rate_per_s")
            if len(taken) == SLOTS:
                raise Refusal("bad_request", f"more than {SLOTS} API keys")
            names.add(key.name)
            slot = int(key.sha256[:15], 16) % SLOTS
            while slot in taken:
                slot = (slot + 1) % SLOTS
            taken.add(slot)
            interval = room = 0.0
            if key.rate_per_s is not None:
                interval = 1.0 / key.rate_per_s
                room = (key.burst or max(1, math.ceil(key.rate_per_s))) * interval
            pools = frozenset(key.pools) if key.pools else None
            self._by_digest[key.sha256] = _Held(KeyUse(key.name, key.share, pools), slot, interval, room)

    def __len__(self) -> int:
        return len(self._by_digest)

    def check(self, authorization: bytes, api_key: bytes, now: float) -> KeyUse:
        """Whose request this is, and count it. The arguments are whole header lines, empty where there is none.

        Authorization counts where there are both. `now`: seconds, of a clock that all who share the slots read alike.
        Raises Refusal: unauthorized, or too_many_requests with the time until the next one is due.
        """
        held = self._seen.get(authorization or api_key)
        if held is None:
            try:
                held = self._look_up(authorization or api_key)
            except Refusal:
                self.refused[""] += 1
                raise
        interval = held.interval
        if interval:
            slots = self._slots
            due = slots[held.slot]
            due = interval + (due if due > now else now)
            early = due - now - held.room
            if early > 1e-9:
                self.refused[held.use.name] += 1
                raise Refusal(
                    "too_many_requests",
                    f"the API key {held.use.name} may send {1 / interval:g} requests a second",
                    early,
                )
            slots[held.slot] = due
        return held.use

    def known(self, authorization: bytes, api_key: bytes) -> KeyUse | None:
        """Whose key it is, without counting a request; None where check() has not let it in before."""
        held = self._seen.get(authorization or api_key)
        return None if held is None else held.use

    def _look_up(self, line: bytes) -> _Held:
        if not line:
            raise Refusal("unauthorized", f"this needs an API key: {_HOW}")
        name, _, value = line.partition(b":")
        key = value.strip(b" \t\r\n")
        if name.lower() == b"authorization":
            scheme, _, key = key.partition(b" ")
            if scheme.lower() != b"bearer":
                raise Refusal("unauthorized", f"this needs an API key: {_HOW}")
        held = self._by_digest.get(hashlib.sha256(key.strip(b" \t")).hexdigest())
        if held is None:
            raise Refusal("unauthorized", "this API key is not known here; it may have been revoked")
        if len(line) <= _LINE_KEPT:
            if len(self._seen) >= _SEEN_KEPT:
                self._seen.clear()
            self._seen[line] = held
        return held


class AwaitedKeys(Keyring):
    """Keys will be asked for, but nobody has said yet which are good: who comes is told to come again."""

    def __init__(self) -> None:
        super().__init__(())

    def check(self, authorization: bytes, api_key: bytes, now: float) -> KeyUse:
        """Raises Refusal (unavailable)."""
        raise Refusal("unavailable", "the balancer was not told yet which API keys are good", 1.0)
