"""The way of a release to one host: what is missing there is sent and made, and what is there and whole is left alone.

The host is asked once what it has. A host that has everything is sent nothing: one question, no bytes.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install import target as targets
from fleet_controller.hosts.install import wheel as wheels_of_ours
from fleet_controller.hosts.install.archives import Archives
from fleet_controller.hosts.install.lock import Lock, Wheel
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.resolve import Wheels
from fleet_controller.hosts.install.sending import Meter, Paces, in_words
from fleet_controller.hosts.install.target import Target
from fleet_controller.hosts.install.weights import Weights, WeightsFile
from fleet_controller.hosts.transport import Transport
from fleet_controller.spec.host import InstallSpec

Say = Callable[[str], None]

ENVIRONMENT_TIMEOUT_S = 3600.0
# Slower than this nothing is unpacked or hashed: 1 MB/s and a minute.
_SLOWEST_BYTES_PER_S = 1e6
# An installed wheel takes about three times its own room: packed wheels are compressed.
_UNPACKED = 3
# A file that arrives damaged again and again is not sent for ever.
_ROUNDS = 3


class Ask(Protocol):
    """Has the host's keeper do an errand. Raises HostFailure."""

    def __call__(self, errand: str, **args: Any) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Installed:
    """`sent_bytes` went over the wire: 0 when everything was there."""

    key: str
    sent_bytes: int


class Stock:
    """What this machine has for its hosts: packed releases, wheels and weights in the state folder."""

    def __init__(self, folder: Path, withheld: frozenset[str] = frozenset()) -> None:
        """`withheld` variables of our environment are not handed on to pip: passwords."""
        self.archives = Archives(folder / "releases")
        self.wheels = Wheels(folder / "cache", withheld)
        self.weights = Weights(folder / "cache")
        self.paces = Paces()
        self._lock = threading.Lock()

    def pip(self) -> tuple[Wheel, bytes]:
        """Our own pip, for hosts that have none. Raises HostFailure where there is none here either."""
        with self._lock:
            return self._pip

    @cached_property
    def _pip(self) -> tuple[Wheel, bytes]:
        packed = wheels_of_ours.pip()
        sha256 = hashlib.sha256(packed.data).hexdigest()
        return Wheel("pip", "", packed.name, len(packed.data), sha256), packed.data


@dataclass(frozen=True)
class _Parcel:
    """One file to send. `what` names it for the operator; `kept` is the sha256 under which it lies on the host."""

    what: str
    data: Path | bytes
    path: str
    sha256: str

    @property
    def size(self) -> int:
        return len(self.data) if isinstance(self.data, bytes) else self.data.stat().st_size


class Installer:
    """Installs on one host. `interpreter` has everything already, None: an environment is made."""

    def __init__(
        self,
        host: str,
        spec: InstallSpec,
        interpreter: str | None,
        ask: Ask,
        transport: Transport,
        stock: Stock,
    ) -> None:
        self._host = host
        self._spec = spec
        self._interpreter = interpreter
        self._ask = ask
        self._transport = transport
        self._stock = stock

    def wanted(self, release: Release) -> dict[str, Any]:
        """What the keeper has to know about the release to start it."""
        return {"key": release.key, "interpreter": self._interpreter, "python": self._spec.python}

    def target(self) -> Target | None:
        """For which wheels the host is; None where it is sent none. Raises HostFailure."""
        if self._interpreter or self._spec.wheels == "index":
            return None
        return self._target(self._ask("python", python=self._spec.python))

    def install(self, release: Release, say: Say) -> Installed:
        """Put the release, its weights and its environment on the host. Raises HostFailure."""
        listed = [{"path": w.path, "sha256": w.sha256, "mount": w.mount} for w in release.weights]
        # Weights on a mount may have to be hashed here for the first time, but that is an errand of its own.
        state = self._ask("prepare", **self.wanted(release), size=release.size, weights=listed, timeout_s=180)
        lock, environment = self._environment(release, state, say)
        parcels, archive = self._missing(release, state, lock, environment, say)
        sent = self._send(parcels, int(state["free"]), say)
        if archive is not None:
            timeout = 60 + archive.size / _SLOWEST_BYTES_PER_S
            self._ask(
                "unpack",
                key=release.key,
                upload=archive.path,
                sha256=archive.sha256,
                weights=listed,
                timeout_s=timeout,
            )
        sent += self._weigh(release, state, {one.sha256 for one in parcels}, say)
        whole = bool(state["environment"]) and state["noted"] == environment
        if environment and not whole:
            sent += self._build(release, state, lock, environment, say)
        if archive is not None or state["noted"] != environment or sent:
            self._ask(
                "settle",
                key=release.key,
                environment=environment,
                keep=self._spec.keep_releases,
                timeout_s=300,
            )
        return Installed(release.key, sent)

    # what it takes

    def _environment(self, release: Release, state: dict[str, Any], say: Say) -> tuple[Lock | None, str]:
        """The wheels that the host is to be sent, and the name of its environment ("": none is made)."""
        if self._interpreter:
            return None, ""
        version = str(state["facts"]["python"])
        if self._spec.wheels == "index":
            return None, f"{release.environment_key(self._spec.pip_args)}-py{version}"
        target = self._target(state["facts"])
        lock = self._stock.wheels.lock(release.needs(self._spec.pip_args), target, say)
        return lock, f"{lock.key}-py{version}"

    def _target(self, facts: dict[str, Any]) -> Target:
        try:
            return targets.told(facts)
        except ValueError as error:
            raise HostFailure(
                self._host, "environment", str(error), "Set install.wheels: index, or install.interpreter"
            ) from error

    def _missing(
        self, release: Release, state: dict[str, Any], lock: Lock | None, environment: str, say: Say
    ) -> tuple[list[_Parcel], _Parcel | None]:
        """Everything that has to be sent, and which of it is the packed release."""
        parcels = []
        archive = None
        if not state["present"]:
            path, digest = self._stock.archives.get(release)
            archive = _Parcel(f"release {release.key}", path, state["upload"], digest)
            parcels.append(archive)
        seen: set[str] = set()
        for weights in release.weights:
            if state["weights"][weights.sha256] == "missing" and weights.sha256 not in seen:
                seen.add(weights.sha256)
                parcels.append(self._weights_parcel(weights, release, state, say))
        if lock is not None and not (state["environment"] and state["noted"] == environment):
            have = set(state["wheels"])
            parcels += [
                self._wheel_parcel(wheel, release, lock, state, say)
                for wheel in (*lock.wheels, self._stock.pip()[0])
                if wheel.sha256 not in have
            ]
        return parcels, archive

    def _weights_parcel(
        self, weights: WeightsFile, release: Release, state: dict[str, Any], say: Say
    ) -> _Parcel:
        try:
            data = self._stock.weights.get(weights, say)
        except HostFailure as failure:
            if release.packed is None:
                raise
            raise HostFailure(
                failure.host,
                failure.kind,
                f"{failure.cause}. Release {release.key}, to which its pool was sent back, needs them as they "
                f"were, and {self._host} has no copy",
                "Bring them back to that place, or follow fleet.yaml again: fleetctl rollback --clear",
            ) from failure
        path = f"{state['shared']}/weights/{weights.sha256}/file"
        return _Parcel(f"weights {Path(weights.path).name}", data, path, weights.sha256)

    def _wheel_parcel(
        self, wheel: Wheel, release: Release, lock: Lock, state: dict[str, Any], say: Say
    ) -> _Parcel:
        data: Path | bytes
        if wheel.name == "pip" and not wheel.version:
            data = self._stock.pip()[1]
        else:
            needs = release.needs(self._spec.pip_args)
            data = self._stock.wheels.wheel(wheel, needs, lock.target, say)
        path = f"{state['shared']}/wheels/{wheel.sha256}/{wheel.file}"
        return _Parcel(f"wheel {wheel.name}", data, path, wheel.sha256)

    # the way there

    def _send(self, parcels: list[_Parcel], free: int, say: Say) -> int:
        """The bytes that went over the wire. Nothing is begun that the disk has no room for."""
        if not parcels:
            return 0
        total = sum(parcel.size for parcel in parcels)
        need = total + sum(
            (_UNPACKED if parcel.what.startswith("wheel ") else 1) * parcel.size
            for parcel in parcels
            if not parcel.what.startswith("weights ")
        )
        if need > free:
            raise HostFailure(
                self._host,
                "disk",
                f"{in_words(need)} are needed for {len(parcels)} files of {in_words(total)} and what is in them, "
                f"{in_words(free)} are free; nothing was sent",
                "Free space there, or set install.directory to a bigger disk, then run the same again",
            )
        folders = sorted({one.path.rpartition("/")[0] for one in parcels})
        self._ask("folders", folders=folders)
        meter = Meter(total, say)
        pace = self._stock.paces.of(self._spec.rate_limit)
        sent = 0
        for parcel in parcels:
            meter.begin(parcel.what)
            sent += self._transport.put(
                parcel.data, parcel.path, 0o600, meter, sha256=parcel.sha256, pace=pace
            )
            meter.end(parcel.size)
        return sent

    def _weigh(self, release: Release, state: dict[str, Any], arrived: set[str], say: Say) -> int:
        """Have weights hashed where that was never done; send damaged ones again. Bytes that were sent."""
        sent = 0
        left = [one for one in release.weights if state["weights"][one.sha256] != "known"]
        for turn in range(_ROUNDS):
            if not left:
                return sent
            listed = [
                {"path": w.path, "sha256": w.sha256, "mount": w.mount, "arrived": w.sha256 in arrived}
                for w in left
            ]
            answer = self._ask("verify", weights=listed, timeout_s=ENVIRONMENT_TIMEOUT_S, progress=say)
            left = [one for one in left if one.sha256 in answer["damaged"]]
            if left and turn == _ROUNDS - 1:
                raise self._rots(f"weights {left[0].path}")
            parcels = [self._weights_parcel(one, release, state, say) for one in left]
            sent += self._send(parcels, int(state["free"]), say)
            arrived = {one.sha256 for one in parcels}
        return sent

    def _build(
        self, release: Release, state: dict[str, Any], lock: Lock | None, environment: str, say: Say
    ) -> int:
        """The environment; wheels that are damaged there are sent again. Bytes that were sent."""
        wheels = () if lock is None else (*lock.wheels, self._stock.pip()[0])
        args = {
            "environment": environment,
            "wheels": [{"name": w.name, "file": w.file, "sha256": w.sha256} for w in wheels],
            "requirements": release.requirements,
            "requirement_files": release.requirement_files,
            "pip_args": self._spec.pip_args,
        }
        sent = 0
        for turn in range(_ROUNDS):
            answer = self._ask(
                "environment", **self.wanted(release), **args, timeout_s=ENVIRONMENT_TIMEOUT_S, progress=say
            )
            damaged = [wheel for wheel in wheels if wheel.sha256 in answer["damaged"]]
            if not damaged or lock is None:
                break
            if turn == _ROUNDS - 1:
                raise self._rots(f"wheel {damaged[0].file}")
            parcels = [self._wheel_parcel(wheel, release, lock, state, say) for wheel in damaged]
            sent += self._send(parcels, int(state["free"]), say)
        return sent

    def _rots(self, what: str) -> HostFailure:
        return HostFailure(
            self._host,
            "release",
            f"{what} was sent whole and is damaged on its disk all the same",
            "Look at the host's disk (dmesg, smartctl), or set install.directory to another",
        )
