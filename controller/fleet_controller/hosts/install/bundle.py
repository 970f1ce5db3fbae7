"""One file with all that a fleet's hosts need, for a site without the internet; every part of it has its sha256.

A plain tar: manifest.json first, then wheels, locks, weights, the agent, and the site (fleet.yaml and the models). It
is read twice: nothing of a damaged one is taken.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, Any

from fleet_controller.hosts.install import lock as locks
from fleet_controller.hosts.install import wheel
from fleet_controller.hosts.install.credentials import left_out
from fleet_controller.hosts.install.installer import Stock
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.resolve import Needs
from fleet_controller.hosts.install.sending import in_words
from fleet_controller.hosts.install.target import Target
from fleet_controller.spec import FleetSpec

SCHEMA = "fleetctl/bundle/v1"
MANIFEST = "manifest.json"
_CHUNK = 1 << 20
_MANIFEST_LIMIT = 64 << 20

Say = Callable[[str], None]


class BundleError(Exception):
    """A bundle that can't be used, or made: which part, and why."""


@dataclass(frozen=True)
class Want:
    """A release that a host of such a kind is to be given; no target: it has an interpreter with everything."""

    release: Release
    pip_args: tuple[str, ...]
    target: Target | None

    @property
    def needs(self) -> Needs:
        return self.release.needs(self.pip_args)


@dataclass
class Contents:
    """What is in a bundle, for the operator. `placed`: sources that lie elsewhere at the site than here. `left_out`:
    keys of its fleet.yaml at which a user or a password stood."""

    fleet: str = ""
    wheels: int = 0
    weights: int = 0
    targets: list[str] = field(default_factory=list)
    size: int = 0
    placed: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Part:
    source: bytes | Path
    size: int
    sha256: str


def write(out: Path, spec: FleetSpec, wants: Iterable[Want], stock: Stock, say: Say) -> Contents:
    """Make the bundle `out`, whole or not at all. Raises HostFailure where a part can't be had, BundleError."""
    contents = Contents(fleet=spec.fleet)
    parts: dict[str, _Part] = {}
    targets = set()
    releases: dict[str, Release] = {}
    for want in wants:
        releases[want.release.key] = want.release
        if want.target is None:
            continue
        lock = stock.wheels.lock(want.needs, want.target, say)
        targets.add(str(want.target))
        parts[f"locks/{want.needs.key}-{lock.target}.json"] = _bytes(lock.text().encode())
        for one in lock.wheels:
            path = stock.wheels.wheel(one, want.needs, lock.target, say)
            parts[f"wheels/{one.sha256}/{one.file}"] = _Part(path, one.size, one.sha256)
    laid: dict[str, str] = {}
    for release in releases.values():
        for weights in release.weights:
            if weights.mount is None:
                path = stock.weights.get(weights, say)
                parts[f"weights/{weights.sha256}"] = _Part(path, path.stat().st_size, weights.sha256)
    packed = wheel.build()
    parts[f"agent/{packed.name}"] = _bytes(packed.data)
    parts["site/fleet.yaml"] = _bytes(_fleet_yaml(spec, contents))
    _site(spec, releases.values(), parts, laid, contents)
    contents.targets = sorted(targets)
    _count(parts, contents)
    manifest = {
        "schema": SCHEMA,
        "fleet": spec.fleet,
        "targets": contents.targets,
        "placed": contents.placed,
        "left_out": contents.left_out,
        "laid": laid,
        "files": {name: {"size": part.size, "sha256": part.sha256} for name, part in sorted(parts.items())},
    }
    say(f"writing {out} ({in_words(contents.size)})")
    _pack(out, {MANIFEST: _bytes(json.dumps(manifest, indent=1).encode()), **dict(sorted(parts.items()))})
    return contents


def load(path: Path, stock: Stock, say: Say) -> Contents:
    """Take wheels, locks and weights of the bundle into this fleet's stock. Of a damaged one nothing: BundleError."""
    manifest = _checked(path, say)
    with _opened(path) as tar, _scratch(stock.wheels.shelf.folder) as scratch:
        for member, stream in _members(tar):
            room, _, rest = member.name.partition("/")
            if room == "locks":
                stock.wheels.keep(rest[:16], locks.read(stream.read().decode()))
            elif room in ("wheels", "weights"):
                sha256, _, name = rest.partition("/")
                shelf = stock.wheels.shelf if room == "wheels" else stock.weights.shelf
                if shelf.find(sha256) is None:
                    with scratch.open("wb") as out:
                        shutil.copyfileobj(stream, out, _CHUNK)
                    shelf.take(scratch, sha256, name or "file")
    return _told(manifest)


def unpack_site(path: Path, folder: Path, say: Say) -> Contents:
    """Write fleet.yaml and the models of the bundle into `folder`. Raises BundleError where a file is in the way."""
    manifest = _checked(path, say)
    laid: dict[str, str] = manifest["laid"]
    names = [n.removeprefix("site/") for n in (*manifest["files"], *laid) if n.startswith("site/")]
    for name in names:
        if (folder / name).exists():
            raise BundleError(f"{folder / name} is in the way; name an empty folder, or leave out --into")
    by_sha: dict[str, list[str]] = {}
    for name, sha256 in laid.items():
        by_sha.setdefault(f"weights/{sha256}", []).append(name)
    with _opened(path) as tar:
        for member, stream in _members(tar):
            for name in [member.name, *by_sha.get(member.name, [])]:
                if name.startswith("site/"):
                    target = folder / name.removeprefix("site/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    stream.seek(0)
                    with target.open("wb") as out:
                        shutil.copyfileobj(stream, out, _CHUNK)
    return _told(manifest)


# writing


def _fleet_yaml(spec: FleetSpec, contents: Contents) -> bytes:
    """It goes along as it is, but for passwords that the site does not need: the wheels and weights are there."""
    try:
        text, contents.left_out = left_out(spec.source.read_text("utf-8"), spec)
    except ValueError as key:
        raise BundleError(
            f"{spec.source}: {key} holds a password that would travel with the bundle, and is written so that it "
            "can't be left out; write the address in one line, without escapes"
        ) from None
    return text.encode()


def _site(
    spec: FleetSpec,
    releases: Iterable[Release],
    parts: dict[str, _Part],
    laid: dict[str, str],
    contents: Contents,
) -> None:
    """The models' folders, at the place from fleet.yaml where they are here; what lies outside goes to models/NAME."""
    home = spec.source.parent
    places: dict[str, str] = {}
    for model in spec.models:
        if model.source is None:
            continue
        try:
            places[model.name] = model.source.relative_to(home).as_posix()
        except ValueError:
            places[model.name] = contents.placed[f"source of {model.name}"] = f"models/{model.name}"
    for release in releases:
        for file in release.files:
            top, _, rest = file.path.partition("/")
            name, _, inside = rest.partition("/")
            if top == "models" and name in places:
                size = len(file.source) if isinstance(file.source, bytes) else file.size
                parts[f"site/{places[name]}/{inside}"] = _Part(file.source, size, file.sha256)
        for weights in release.weights:
            if weights.file is None:
                continue
            try:
                laid[f"site/{weights.file.relative_to(home).as_posix()}"] = weights.sha256
            except ValueError:
                _, name, inside = weights.path.split("/", 2)
                place = f"{places.get(name, f'models/{name}')}/{inside}"
                laid[f"site/{place}"] = weights.sha256
                contents.placed[f"weights {weights.file}"] = place


def _count(parts: Mapping[str, _Part], contents: Contents) -> None:
    contents.wheels = sum(name.startswith("wheels/") for name in parts)
    contents.weights = sum(name.startswith("weights/") for name in parts)
    contents.size = sum(part.size for part in parts.values())


def _bytes(data: bytes) -> _Part:
    return _Part(data, len(data), hashlib.sha256(data).hexdigest())


def _pack(out: Path, parts: Mapping[str, _Part]) -> None:
    """Raises BundleError for a file that changed meanwhile, or a disk that is full."""
    fresh = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        with tarfile.open(fresh, "w", format=tarfile.PAX_FORMAT) as tar:
            for name, part in parts.items():
                entry = tarfile.TarInfo(name)
                entry.size = part.size
                entry.mode = 0o600
                source = io.BytesIO(part.source) if isinstance(part.source, bytes) else part.source.open("rb")
                with source:
                    tar.addfile(entry, _Hashing(source, name, part))
        fresh.replace(out)
    except OSError as error:
        raise BundleError(f"{out} cannot be written: {error.strerror or error}") from error
    finally:
        fresh.unlink(missing_ok=True)


class _Hashing(io.RawIOBase):
    """A part on its way into the bundle. Raises BundleError at its end where it is not what was found before."""

    def __init__(self, source: IO[bytes], name: str, part: _Part) -> None:
        self._source = source
        self._name = name
        self._part = part
        self._digest = hashlib.sha256()
        self._left = part.size

    def read(self, size: int = -1, /) -> bytes:
        data = self._source.read(min(size, self._left) if size >= 0 else self._left)
        self._digest.update(data)
        self._left -= len(data)
        if not self._left and self._digest.hexdigest() != self._part.sha256:
            raise BundleError(f"{self._name} changed while it was being packed; run the same again")
        return data


# reading


def _checked(path: Path, say: Say) -> dict[str, Any]:
    """The manifest of a bundle that is whole. Raises BundleError naming the part that is not."""
    with _opened(path) as tar:
        first = True
        manifest: dict[str, Any] = {}
        left: dict[str, Any] = {}
        for member, stream in _members(tar):
            if first:
                manifest = _manifest(path, member, stream)
                left = dict(manifest["files"])
                first = False
                say(f"checking {path.name}: {len(left)} files")
                continue
            expected = left.pop(member.name, None)
            if expected is None:
                raise BundleError(
                    f"{path} holds {member.name}, which its manifest does not name; make it anew"
                )
            digest = hashlib.sha256()
            try:
                while chunk := stream.read(_CHUNK):
                    digest.update(chunk)
            except (OSError, tarfile.TarError) as error:
                raise BundleError(
                    f"{path} ends in the middle of {member.name}: {error}; copy it again"
                ) from error
            if member.size != expected["size"] or digest.hexdigest() != expected["sha256"]:
                raise BundleError(
                    f"{path} is damaged: {member.name} is not what the manifest says (its sha256 differs); nothing was "
                    "taken from it. Copy it again, or make it anew with `fleetctl bundle`"
                )
    if first:
        raise BundleError(f"{path} is empty; it is no bundle of fleetctl")
    if left:
        names = ", ".join(sorted(left)[:3])
        raise BundleError(
            f"{path} lacks {len(left)} files ({names}); nothing was taken from it. Copy it again"
        )
    return manifest


def _manifest(path: Path, member: tarfile.TarInfo, stream: IO[bytes]) -> dict[str, Any]:
    if member.name != MANIFEST or member.size > _MANIFEST_LIMIT:
        raise BundleError(f"{path} is no bundle of fleetctl: it does not begin with {MANIFEST}")
    try:
        value = json.loads(stream.read())
        if value["schema"] != SCHEMA:
            raise BundleError(
                f"{path} has the schema {str(value['schema'])[:40]!r}, this fleetctl reads {SCHEMA}"
            )
        for name in (*value["files"], *value["laid"]):
            if name.startswith("/") or ".." in PurePosixPath(name).parts:
                raise BundleError(f"{path} names {name!r}, which is no place in a bundle")
        for one in value["files"].values():
            int(one["size"]), str(one["sha256"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path} is damaged: its {MANIFEST} cannot be read ({error})") from error
    return dict(value)


@contextmanager
def _opened(path: Path) -> Iterator[tarfile.TarFile]:
    try:
        tar = tarfile.open(path, "r:")  # noqa: SIM115
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error.strerror or error}") from error
    except tarfile.TarError as error:
        raise BundleError(f"{path} is no bundle of fleetctl, or cut off: {error}") from error
    with tar:
        yield tar


def _members(tar: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    name = MANIFEST
    try:
        for member in tar:
            name = member.name
            stream = tar.extractfile(member) if member.isreg() else None
            if stream is None:
                raise BundleError(f"{tar.name!s} holds {name}, which is no file")
            yield member, stream
    except (tarfile.TarError, EOFError) as error:
        raise BundleError(
            f"{tar.name!s} is cut off or damaged behind {name}: {error}; copy it again"
        ) from error


@contextmanager
def _scratch(folder: Path) -> Iterator[Path]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".load-", dir=folder) as place:
        yield Path(place) / "part"


def _told(manifest: Mapping[str, Any]) -> Contents:
    files = manifest["files"]
    return Contents(
        str(manifest.get("fleet", "")),
        sum(name.startswith("wheels/") for name in files),
        sum(name.startswith("weights/") for name in files),
        [str(one) for one in manifest.get("targets", [])],
        sum(one["size"] for one in files.values()),
        dict(manifest.get("placed", {})),
        [str(key) for key in manifest.get("left_out", [])],
    )
