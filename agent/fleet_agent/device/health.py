"""Decides whether a GPU can be trusted, from what was read of it and which errors the driver told. PURE: `now` is an
argument (time.monotonic() seconds).

failed: nothing is computed there any more, until the agent is started again. degraded: it serves, and somebody should
look. unknown: nothing was read for five seconds (NVML is absent, hangs, or fails); that is never called healthy.
What the driver itself wants done (recovery action, Xid 154) counts as much as the list in xid.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from fleet_agent.device.reading import Reading
from fleet_agent.device.xid import REBOOT, RESET, WINDOW, described
from fleet_wire.agent import DeviceHealthState

STALE_AFTER_S = 5.0
# Contained ECC errors (Xid 94) that are too many, and within which time.
CONTAINED_MOST = 3
CONTAINED_WITHIN_S = 24 * 3600.0
# A contained error is counted among the uncorrected ones too; that long its own event explains a rise.
_EXPLAINED_S = 10.0
_XIDS_KEPT = 16

# NVML_GPU_RECOVERY_ACTION_...: reset, reboot, bus reset, system reboot.
_RECOVERY_FAILED = {1: RESET, 2: REBOOT, 6: RESET, 7: REBOOT}
# ..._DRAIN_P2P, _DRAIN_AND_RESET, _RECOVER_IMEX_DOMAIN: it may finish what it does.
_RECOVERY_NOTED = (3, 4, 5)


@dataclass(frozen=True, slots=True)
class Verdict:
    """`reason`: why it isn't healthy, with what to do; None where it is."""

    state: DeviceHealthState
    reason: str | None = None


class DeviceHealth:
    """One GPU. `name`: as the reason calls it ("cuda:0")."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.xids: list[int] = []  # the last few, oldest first
        self.xid_counts: dict[int, int] = {}
        self._fault: str | None = None
        self._notes: dict[str, str] = {}
        self._contained: list[float] = []
        self._last: Reading | None = None
        self._error: str | None = None
        self._uncorrected: int | None = None  # those known and explained
        self._rises = 0  # readings in a row with more than that

    def heard(self, xid: int, now: float) -> None:
        """The driver told an Xid."""
        self.xids = [*self.xids, xid][-_XIDS_KEPT:]
        self.xid_counts[xid] = self.xid_counts.get(xid, 0) + 1
        entry = described(xid)
        what = f"Xid {xid} ({entry.name})"
        if entry.severity == "failed":
            self._fail(f"{what}: {entry.remedy}")
        elif entry.severity == "contained":
            self._contained = [at for at in self._contained if now - at < CONTAINED_WITHIN_S] + [now]
            if len(self._contained) >= CONTAINED_MOST:
                self._fail(f"{what}, {len(self._contained)} times in a day: {RESET}")
            self._notes["contained"] = f"{what}: {entry.remedy}"
        elif entry.severity == "noted":
            self._notes[str(xid)] = f"{what}: {entry.remedy}"

    def lost(self, why: str) -> None:
        """NVML says that the GPU is lost, or can't be used before a reset. `why`: with what to do."""
        self._fail(why)

    def unreadable(self, why: str) -> None:
        """NVML gave no reading; the last one gets old."""
        self._error = why

    def read(self, reading: Reading) -> None:
        self._last = reading
        self._error = None
        if reading.remap_failed:
            self._fail(f"a bad memory row could not be remapped: {RESET}")
        action = reading.recovery or 0
        if action in _RECOVERY_FAILED:
            self._fail(f"the driver asks for a recovery (action {action}): {_RECOVERY_FAILED[action]}")
        self._note(
            "remap", bool(reading.remap_pending), f"a bad memory row waits for its remapping: {WINDOW}"
        )
        self._note("recovery", action in _RECOVERY_NOTED, f"the driver asks to be drained, then: {WINDOW}")
        slow = [name for name in reading.throttled_by if name != "power_cap"]
        self._note("slow", bool(slow), f"slowed down ({', '.join(slow)}): check its cooling and power supply")
        self._count(reading)

    def verdict(self, now: float) -> Verdict:
        if self._fault is not None:
            return Verdict("failed", self._fault)
        notes = list(self._notes.values())
        age = None if self._last is None else now - self._last.at
        if age is None or age > STALE_AFTER_S:
            why = self._error or "NVML does not answer"
            since = "" if age is None else f" for {age:.0f} s"
            return Verdict("unknown", "; ".join([f"device {self.name}: nothing read{since} ({why})", *notes]))
        if notes:
            return Verdict("degraded", f"device {self.name}: " + "; ".join(notes))
        return Verdict("healthy")

    def reading(self, now: float) -> Reading | None:
        """The last reading, unless it is too old to be believed."""
        if self._last is None or now - self._last.at > STALE_AFTER_S:
            return None
        return self._last

    def _count(self, reading: Reading) -> None:
        """More uncorrected ECC errors than before, in two readings in a row, and no contained one explains them."""
        if reading.uncorrected is None:
            return
        if self._uncorrected is None or reading.uncorrected <= self._uncorrected:
            self._uncorrected, self._rises = reading.uncorrected, 0
            return
        if self._contained and reading.at - self._contained[-1] < _EXPLAINED_S:
            self._uncorrected, self._rises = reading.uncorrected, 0
            return
        self._rises += 1
        if self._rises > 1:
            more = reading.uncorrected - self._uncorrected
            self._fail(f"{more} uncorrectable ECC errors more than before: {RESET}")

    def _note(self, key: str, holds: bool, text: str) -> None:
        if holds:
            self._notes[key] = text
        else:
            self._notes.pop(key, None)

    def _fail(self, text: str) -> None:
        if self._fault is None:
            self._fault = f"device {self.name}: {text}"
