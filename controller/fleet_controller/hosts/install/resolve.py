"""Asks pip, on this machine and once, which wheels the requirements come to for a target, and fetches them.

The answer is kept as a lock beside the wheels: the next hosts of that kind, and the next `up`, ask nobody.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.inheritance import inherited
from fleet_controller.hosts.install import lock
from fleet_controller.hosts.install.credentials import bare
from fleet_controller.hosts.install.lock import Lock, Wheel
from fleet_controller.hosts.install.shelf import Shelf, alone, hashed, unwritten
from fleet_controller.hosts.install.target import Target
from fleet_controller.hosts.keeper.discreet import discreet

Say = Callable[[str], None]
# pip's choice is mended where it weighed a condition for the wrong Python; each round may bring new ones.
_ROUNDS = 6
_TELL_S = 1.0


@dataclass(frozen=True)
class Needs:
    """What an environment is wanted for: requirements, files with more of them, and pip's further arguments."""

    requirements: tuple[str, ...]
    files: tuple[Path | bytes, ...] = ()
    pip_args: tuple[str, ...] = ()

    @property
    def key(self) -> str:
        """Names these needs; equal ones have the same on every machine."""
        digest = hashlib.sha256()
        for text in (*self.requirements, "--", *bare(self.pip_args)):
            digest.update(text.encode() + b"\0")
        for file in self.files:
            digest.update(hashlib.sha256(_content(file)).digest())
        return digest.hexdigest()[:16]


class Wheels:
    """Locks and wheels of a fleet, in `folder`. Raises HostFailure (host "this machine") throughout."""

    def __init__(self, folder: Path, withheld: frozenset[str] = frozenset()) -> None:
        """pip does not inherit the `withheld` variables of our environment."""
        self._folder = folder
        self._withheld = withheld
        self.shelf = Shelf(folder / "wheels")

    def lock(self, needs: Needs, target: Target, say: Say) -> Lock:
        """The wheels that `needs` come to for `target`; resolved when they never were."""
        found = self.known(needs, target)
        if found is not None:
            return found
        with alone(
            self._folder / "locks" / ".lock", lambda: say("waiting: another host's wheels are being chosen")
        ):
            found = self.known(needs, target)
            if found is None:
                found = self._resolve(needs, target, say)
                self.keep(needs.key, found)
        return found

    def known(self, needs: Needs, target: Target) -> Lock | None:
        """The lock that was made for it, or for an older C library that it can use all the same."""
        fitting = []
        for path in (self._folder / "locks").glob(f"{needs.key}-*.json"):
            try:
                one = lock.read(path.read_text("utf-8"))
            except (OSError, ValueError):
                continue  # damaged: it is made anew
            if one.target.serves(target):
                fitting.append(one)
        return max(fitting, key=lambda one: one.target.libc_version, default=None)

    def keep(self, needs_key: str, made: Lock) -> None:
        folder = self._folder / "locks"
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = folder / f".{needs_key}.new"
            fresh.write_text(made.text(), "utf-8")
            fresh.replace(folder / f"{needs_key}-{made.target}.json")
        except OSError as error:
            raise unwritten(folder, error) from error

    def wheel(self, wheel: Wheel, needs: Needs, target: Target, say: Say) -> Path:
        """The file of a locked wheel; one that is missing or damaged is fetched again, the very same."""
        found = self.shelf.find(wheel.sha256)
        if found is not None:
            return found
        with alone(self._folder / "locks" / ".lock", lambda: say("waiting: wheels are being fetched")):
            found = self.shelf.find(wheel.sha256)
            if found is None:
                say(f"fetching {wheel.file}")
                with _temporary(self._folder) as place:
                    pinned = f"{wheel.name}=={wheel.version} --hash=sha256:{wheel.sha256}\n"
                    stays, lines = discreet(list(needs.pip_args))
                    options = [*target.pip_options(), "--no-deps", "--require-hashes", *stays]
                    listing = "\n".join([*lines, pinned]).encode()
                    _pip(place, options, [listing], inherited(self._withheld), say)
                    for path in place.glob("*.whl"):
                        if hashed(path) == wheel.sha256:
                            return self.shelf.take(path, wheel.sha256, wheel.file)
                raise HostFailure(
                    "this machine",
                    "environment",
                    f"the wheel {wheel.file} with the sha256 {wheel.sha256[:12]}... cannot be had any more",
                    f"Remove {self._folder / 'locks'} so that all wheels are chosen anew",
                )
        return found

    def _resolve(self, needs: Needs, target: Target, say: Say) -> Lock:
        say(f"choosing the wheels for {target}, once")
        wanted, all_read = _wanted(needs)
        more: list[str] = []
        with _temporary(self._folder) as place:
            for _ in range(_ROUNDS):
                stays, lines = discreet(list(needs.pip_args))
                listing = "".join(f"{line}\n" for line in (*lines, *needs.requirements, *more)).encode()
                options = [*target.pip_options(), *stays]
                _pip(place, options, [listing, *needs.files], inherited(self._withheld), say)
                chosen = [_read(path) for path in sorted(place.glob("*.whl"))]
                left_out = lock.lacking(chosen, wanted, target)
                if not set(left_out) - set(more):
                    break
                more += left_out
                for path in place.glob("*.whl"):
                    path.unlink()
            if left_out:
                raise HostFailure(
                    "this machine",
                    "environment",
                    f"pip leaves out {', '.join(left_out[:5])} for {target}",
                    "Write it into the model's requirements, or set install.wheels: index",
                )
            # Only where every line was understood is it certain what is not needed.
            locked = tuple(lock.needed(chosen, wanted, target) if all_read else sorted(chosen))
            for wheel in locked:
                self.shelf.take(place / wheel.file, wheel.sha256, wheel.file)
        self.shelf.sweep(time.time())
        return Lock(target, wanted, locked)


@contextmanager
def _temporary(folder: Path) -> Iterator[Path]:
    """A folder on the shelf's disk for what pip brings."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = Path(tempfile.mkdtemp(prefix=".fetch-", dir=folder))
    except OSError as error:
        raise unwritten(folder, error) from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _pip(
    place: Path,
    options: Sequence[str],
    listings: Sequence[bytes | Path],
    environment: Mapping[str, str],
    say: Say,
) -> None:
    """`pip download` into `place`."""
    argv = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check", "--no-input"]
    argv += ["--progress-bar", "off", "--dest", str(place), *options]
    for index, listing in enumerate(listings):
        if isinstance(listing, bytes):
            path = place / f"requirements-{index}.txt"
            path.write_bytes(listing)
            listing = path
        argv += ["-r", str(listing)]
    last: list[str] = []
    told = 0.0
    with subprocess.Popen(
        argv,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
        text=True,
        errors="replace",
    ) as work:
        assert work.stdout is not None
        try:
            for line in work.stdout:
                text = line.strip()
                last = [*last, text][-12:]
                if text.startswith(("Collecting ", "Downloading ")) and time.monotonic() - told > _TELL_S:
                    told = time.monotonic()
                    say(text[:160])
        except BaseException:
            work.kill()
            raise
    if work.returncode:
        said = brief("\n".join(line for line in last if line).encode())
        if "No module named pip" in said:
            said = "pip is missing in the environment of fleetctl (`python -m ensurepip` brings it)"
        raise HostFailure(
            "this machine",
            "environment",
            f"the wheels for the hosts cannot be had: {said}",
            "Check that this machine reaches the package index (install.pip_args can name another), that all "
            "requirements have wheels (install.wheels: index lets the hosts build others), or load a bundle "
            "(`fleetctl bundle --load FILE`)",
        )


def _read(path: Path) -> Wheel:
    """What a wheel says of itself."""
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        with ZipFile(path) as archive:
            about = next(
                one
                for one in archive.namelist()
                if one.count("/") == 1 and one.endswith(".dist-info/METADATA")
            )
            text = archive.read(about).decode("utf-8", "replace")
        requires = tuple(HeaderParser().parsestr(text).get_all("Requires-Dist") or ())
        return Wheel(str(name), str(version), path.name, path.stat().st_size, hashed(path), requires)
    except (BadZipFile, InvalidWheelFilename, StopIteration, OSError, zipfile.LargeZipFile) as error:
        raise HostFailure(
            "this machine", "environment", f"{path.name} is not a wheel: {error}", "See where it comes from"
        ) from error


def _wanted(needs: Needs) -> tuple[tuple[str, ...], bool]:
    """The requirements one by one, and whether that is all: options, links and nested files are for pip alone."""
    lines = list(needs.requirements)
    for file in needs.files:
        text = _content(file).decode("utf-8", "replace").replace("\\\n", " ")
        stripped = (line.split(" #")[0].split(" --hash")[0].strip() for line in text.splitlines())
        lines += [line for line in stripped if line and not line.startswith("#")]
    found, all_read = set(), True
    for line in lines:
        try:
            found.add(str(Requirement(line)))
        except InvalidRequirement:
            all_read = False
    return tuple(sorted(found)), all_read


def _content(file: Path | bytes) -> bytes:
    return file if isinstance(file, bytes) else file.read_bytes()
