"""What is put on a host so that it can serve: the agent's wheel, its code, the models' folders.

A release is named by its content. The same content has the same key on every machine and at any time.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install import wheel
from fleet_controller.hosts.install.credentials import bare
from fleet_controller.hosts.install.resolve import Needs
from fleet_controller.hosts.install.weights import WeightsFile
from fleet_controller.spec import ModelSpec

# What editors, tools and version control leave in a model's folder; no model needs it to run.
_LEFT_OUT = {
    "__pycache__",
    ".git",
    ".hg",
    ".venv",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".DS_Store",
}
_CHUNK = 1 << 20


@dataclass(frozen=True)
class ReleaseFile:
    """One file: its path in the release, where its bytes are, and what they must be."""

    path: str
    source: bytes | Path
    size: int
    sha256: str
    executable: bool


@dataclass(frozen=True)
class Release:
    """`key` names the content. `requirements` is what pip installs for it, beside the `requirement_files` in it.

    `packed`, of one that served before: the archive that was kept, and its sha256; its files may have changed since.
    """

    key: str
    files: tuple[ReleaseFile, ...]
    requirements: tuple[str, ...]
    requirement_files: tuple[str, ...]
    weights: tuple[WeightsFile, ...] = ()
    packed: tuple[Path, str] | None = None

    @property
    def size(self) -> int:
        """Bytes of all files together, without the weights."""
        return sum(file.size for file in self.files)

    def needs(self, pip_args: Sequence[str]) -> Needs:
        """What its environment has to have."""
        files = {file.path: file.source for file in self.files}
        return Needs(
            self.requirements, tuple(files[path] for path in self.requirement_files), tuple(pip_args)
        )

    def environment_key(self, pip_args: Sequence[str]) -> str:
        """Names the virtual environment that these requirements lead to."""
        digest = hashlib.sha256()
        for text in (*self.requirements, "--", *bare(pip_args)):
            digest.update(text.encode() + b"\0")
        for file in self.files:
            if file.path in self.requirement_files:
                digest.update(file.sha256.encode())
        return digest.hexdigest()[:16]

    def archive(self, folder: Path) -> tuple[Path, str]:
        """Write the release as one tar file `KEY.tar` into `folder`; returns its path and sha256.

        Raises HostFailure when a model's file changed since `build`.
        """
        path = folder / f"{self.key}.tar"
        part = folder / f".{self.key}.{os.getpid()}.part"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            with tarfile.open(part, "w", format=tarfile.PAX_FORMAT) as tar:
                for file in self.files:
                    entry = tarfile.TarInfo(file.path)
                    entry.size = file.size
                    entry.mode = 0o700 if file.executable else 0o600
                    with _Checked(file) as source:
                        tar.addfile(entry, source)
                        source.verify()
            with part.open("rb") as packed:
                digest = hashlib.file_digest(packed, "sha256").hexdigest()
            part.replace(path)
        except OSError as error:
            raise HostFailure(
                "this machine",
                "disk",
                f"the release cannot be packed into {folder}: {error}",
                "Free space there",
            ) from error
        finally:
            part.unlink(missing_ok=True)
        return path, digest


def build(models: Sequence[ModelSpec]) -> Release:
    """The release with which a host serves `models`. Reads all of their files.

    Raises HostFailure (host "this machine", kind "release") for a source folder that cannot be packed.
    """
    packed = wheel.build()
    files = [_in_memory(packed.name, packed.data)]
    files += [_in_memory(f"lib/{name}", data) for name, data in sorted(packed.files.items())]
    requirements = list(packed.requirements)
    requirement_files = []
    weights: list[WeightsFile] = []
    settings = []  # an agent reads them at its start only: other options or batching are another release
    for model in sorted(models, key=lambda one: one.name):
        requirements += model.requirements
        # where weights come from is no part of the content
        settings.append(
            model.model_dump_json(
                exclude={"source": True, "requirements": True, "weights": {"__all__": {"origin"}}}
            )
        )
        weights += _weights(model)
        for file in _folder_files(model, {one.path for one in weights}):
            files.append(file)
            if file.path == f"models/{model.name}/requirements.txt":
                requirement_files.append(file.path)
    requirements = sorted(set(requirements))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.path}\0{file.size}\0{file.sha256}\0{file.executable}\n".encode())
    for text in (*requirements, "--", *settings):
        digest.update(text.encode() + b"\0")
    return Release(
        digest.hexdigest()[:20],
        tuple(files),
        tuple(requirements),
        tuple(requirement_files),
        tuple(weights),
    )


def _weights(model: ModelSpec) -> list[WeightsFile]:
    """The pinned files of a model: they are not packed, but sent by their content, once for all releases."""
    found = []
    for pin in model.weights:
        if not pin.is_pinned_here:
            continue
        path = f"models/{model.name}/{os.path.normpath(pin.file)}"
        if pin.mount is not None:
            found.append(WeightsFile(path, pin.sha256, mount=pin.mount))
        elif pin.origin is not None and "://" in pin.origin:
            found.append(WeightsFile(path, pin.sha256, url=pin.origin))
        else:
            file = Path(pin.origin) if pin.origin is not None else Path(model.source or ".") / pin.file
            if not file.is_file():
                raise _unpackable(model, f"its weights {file} are not a file")
            found.append(WeightsFile(path, pin.sha256, file=file))
    return found


def _in_memory(path: str, data: bytes) -> ReleaseFile:
    return ReleaseFile(path, data, len(data), hashlib.sha256(data).hexdigest(), False)


def _folder_files(model: ModelSpec, apart: set[str]) -> Iterator[ReleaseFile]:
    """The files of the model's folder, but for those whose path in the release is in `apart`."""
    base = model.source
    if base is None:
        return
    if not base.is_dir():
        raise _unpackable(model, f"its source {base} is not a folder")
    for folder, names, file_names in os.walk(base):
        names[:] = sorted(name for name in names if name not in _LEFT_OUT)
        for name in names:
            if (Path(folder) / name).is_symlink():
                raise _unpackable(model, f"{Path(folder) / name} is a link to a folder")
        for name in sorted(file_names):
            path = Path(folder) / name
            inside = f"models/{model.name}/{path.relative_to(base).as_posix()}"
            if name in _LEFT_OUT or path.suffix == ".pyc" or inside in apart:
                continue
            if not path.is_file():
                raise _unpackable(model, f"{path} is not a file, or a link that leads nowhere")
            try:
                with path.open("rb") as source:
                    digest = hashlib.file_digest(source, "sha256").hexdigest()
                info = path.stat()
            except OSError as error:
                raise _unpackable(model, f"{path} cannot be read: {error.strerror}") from error
            yield ReleaseFile(inside, path, info.st_size, digest, bool(info.st_mode & 0o100))


def _unpackable(model: ModelSpec, what: str) -> HostFailure:
    return HostFailure(
        "this machine", "release", f"model {model.name} cannot be packed: {what}", f"Mend {model.source}"
    )


class _Checked:
    """A file's bytes on their way into the archive, hashed as they pass."""

    def __init__(self, file: ReleaseFile) -> None:
        self._file = file
        self._digest = hashlib.sha256()

    def __enter__(self) -> _Checked:
        source = self._file.source
        self._stream = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def read(self, size: int = _CHUNK, /) -> bytes:
        data = self._stream.read(size)
        self._digest.update(data)
        return data

    def verify(self) -> None:
        if self._digest.hexdigest() != self._file.sha256:
            raise HostFailure(
                "this machine",
                "release",
                f"{self._file.path} changed while it was being packed",
                "Run the same again once it is complete",
            )
