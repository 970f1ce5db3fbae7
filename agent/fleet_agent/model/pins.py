"""Which files a model's weights are, and that they are the ones that were pinned.

A pickle runs whatever code it holds when it is loaded, so one is refused unless the configuration says
`trust_pickle: true` for that very file: by the look of the files that are listed and of those that lie in the folder,
and while the model's own code loads, by torch's switch that makes every `torch.load` refuse what isn't plain data.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

from fleet_agent.model.faults import ModelFault
from fleet_wire.agent import ModelConfig

_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
# What is called so and is nothing better known may be a pickle of the oldest kind, which has no mark.
_ALWAYS = {".pkl", ".pickle", ".joblib"}
_UNLESS_KNOWN = {".pt", ".pth", ".ckpt"}
_LOOKED_AT = _ALWAYS | _UNLESS_KNOWN | {".bin", ".model", ".pt2"}
_PICKLED_OBJECTS = ("/constants/custom_obj_", "/constants/opaque_obj_")
_CURE = "convert it to safetensors, or list it under weights with its sha256 and trust_pickle: true"


def verified(config: ModelConfig) -> list[Path]:
    """The listed weights in their order. Raises ModelFault: not there, not the pinned ones, or a pickle."""
    folder = Path(config.path)
    files = []
    for index, pin in enumerate(config.weights):
        file = folder / pin.file
        where = f"model {config.name}: weights[{index}]: {pin.file}"
        if not file.is_file():
            others = sorted(path.name for path in folder.iterdir() if path.is_file() and path.suffix != ".py")
            raise ModelFault(
                f"{where} is not in {folder}, which has {', '.join(others[:8]) or 'no such file'}; put it there or "
                "correct the name"
            )
        with file.open("rb") as data:
            actual = hashlib.file_digest(data, "sha256").hexdigest()
        if actual != pin.sha256.lower():
            raise ModelFault(
                f"{where} has the sha256 {actual}, but {pin.sha256.lower()} is pinned: it is another file or was "
                "changed; bring the right one, or pin this one if you trust it"
            )
        if not pin.trust_pickle and (what := pickled(file)):
            raise ModelFault(
                f"{where} is {what}, which can run any code when it is loaded; convert it to safetensors, or write "
                "trust_pickle: true beside its sha256"
            )
        files.append(file)
    _check_others(config, folder)
    return files


@contextlib.contextmanager
def guarded(config: ModelConfig) -> Iterator[None]:
    """While it lasts, `torch.load` takes no pickled code, unless a file of this model is trusted with it."""
    if any(pin.trust_pickle for pin in config.weights):
        yield
        return
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


def pickled(file: Path) -> str | None:
    """What kind of pickle the file is; None for anything else. By its content, by its name only where that is mute."""
    with file.open("rb") as data:
        head = data.read(9)
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < file.stat().st_size:
        return None  # safetensors: the length of a JSON head
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05":
        return "a pickle"
    if head[:4] == b"PK\x03\x04" and zipfile.is_zipfile(file):
        return _pickled_zip(file)
    if file.suffix in _ALWAYS or (file.suffix in _UNLESS_KNOWN and head):
        return f"a {file.suffix} file of no known safe format"
    return None


def _pickled_zip(file: Path) -> str | None:
    """TorchScript and exported programs are archives too; torch's checkpoints are such with a pickle in them."""
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
    if any(part in name for name in names for part in _PICKLED_OBJECTS):
        return "an exported program with pickled objects in it"
    tops = {name.partition("/")[2] for name in names}
    if "archive_format" in tops or "serialized_exported_program.json" in {*names, *tops}:
        return None
    if "constants.pkl" in tops and any(name.startswith("code/") for name in tops):
        return None
    return "a pickled checkpoint of torch" if "data.pkl" in tops else None


def _check_others(config: ModelConfig, folder: Path) -> None:
    """No pickle lies in the folder that isn't listed: the code beside it could load it."""
    listed = {(folder / pin.file).resolve() for pin in config.weights}
    for file in sorted(folder.rglob("*")):
        if file.suffix not in _LOOKED_AT or not file.is_file() or file.resolve() in listed:
            continue
        if what := pickled(file):
            raise ModelFault(
                f"model {config.name}: {file.relative_to(folder)} is {what}, which can run any code when it is "
                f"loaded; {_CURE}, or remove it"
            )
