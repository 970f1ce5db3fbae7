"""The agent, and pip, as wheels, repacked from what is installed here: always the code that runs here.

Works for editable and for wheel installs alike, needs no build tool and no network, and gives the same
bytes for the same code. The wheel can be installed with pip, and its folders used as they are on PYTHONPATH.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from fleet_controller.hosts.failure import HostFailure

PACKAGES = ("fleet_wire", "fleet_agent")
DISTRIBUTION = "fleetctl"
EXTRA = "agent"
# The oldest time that a zip file can name: equal code gives equal bytes.
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Wheel:
    """`files` are the packages' own, path -> content, as they belong on PYTHONPATH."""

    name: str
    data: bytes
    files: dict[str, bytes]
    requirements: tuple[str, ...]


def build() -> Wheel:
    """Raises HostFailure (host "this machine", kind "release") when fleetctl is not installed as a distribution."""
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise _broken("fleetctl is not installed as a distribution") from None
    version = distribution.version
    requirements = tuple(sorted(extra_requirements(distribution.requires or [], EXTRA)))
    files: dict[str, bytes] = {}
    for package in PACKAGES:
        files |= _package_files(package)
    info = f"fleetctl_agent-{version}.dist-info"
    text = [
        "Metadata-Version: 2.1",
        "Name: fleetctl-agent",
        f"Version: {version}",
        "Summary: The part of fleetctl that runs on each GPU machine.",
        f"Requires-Python: {distribution.metadata['Requires-Python'] or '>=3.11'}",
        *(f"Requires-Dist: {requirement}" for requirement in requirements),
    ]
    entry_points = b"[console_scripts]\nfleet-agent = fleet_agent.__main__:main\n"
    metadata_text = ("\n".join(text) + "\n").encode()
    data = _packed(files, info, {"METADATA": metadata_text, "entry_points.txt": entry_points})
    return Wheel(f"fleetctl_agent-{version}-py3-none-any.whl", data, files, requirements)


def pip() -> Wheel:
    """The pip that is installed here, with which a host that has none makes its environment.

    It runs from the wheel, as ensurepip's does: `python pip-26-py3-none-any.whl/pip`. Raises HostFailure.
    """
    try:
        distribution = metadata.distribution("pip")
    except metadata.PackageNotFoundError:
        raise HostFailure(
            "this machine",
            "environment",
            "pip is missing in the environment of fleetctl, and hosts are sent what it finds",
            "Install it there (`python -m ensurepip`, or `uv pip install pip`)",
        ) from None
    text = (
        distribution.read_text("METADATA")
        or f"Metadata-Version: 2.1\nName: pip\nVersion: {distribution.version}\n"
    )
    files = _package_files("pip")
    info = f"pip-{distribution.version}.dist-info"
    name = f"pip-{distribution.version}-py3-none-any.whl"
    return Wheel(name, _packed(files, info, {"METADATA": text.encode()}, deflated=True), files, ())


def _packed(files: dict[str, bytes], info: str, about: dict[str, bytes], deflated: bool = False) -> bytes:
    """A wheel of these files; stored, not deflated, where the same code must give the same bytes everywhere."""
    tag = b"Wheel-Version: 1.0\nGenerator: fleetctl\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    all_files = {**files, f"{info}/WHEEL": tag, **{f"{info}/{name}": data for name, data in about.items()}}
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in sorted(all_files.items())]
    all_files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    buffer = io.BytesIO()
    # zlib versions differ in their output
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        # RECORD last, as PEP 427 asks
        for name, data in sorted(all_files.items(), key=lambda item: (item[0].endswith("RECORD"), item[0])):
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.create_system = 3
            entry.external_attr = 0o100644 << 16
            entry.compress_type = archive.compression
            archive.writestr(entry, data)
    return buffer.getvalue()


def extra_requirements(requires: list[str], extra: str) -> list[str]:
    """What `extra` adds to a distribution, without the condition that names the extra.

    Raises HostFailure for a condition that it cannot take apart, rather than dropping a requirement.
    """
    found = []
    for line in requires:
        requirement, _, marker = (part.strip() for part in line.partition(";"))
        for quote in "\"'":
            marker = marker.replace(f"extra == {quote}{extra}{quote}", "EXTRA")
        if "EXTRA" not in marker:
            continue
        rest = marker.removesuffix("EXTRA").strip()
        if rest.endswith("and"):
            rest = rest.removesuffix("and").strip()
        elif rest:
            raise _broken(f"its requirement {line!r} has a condition that cannot be taken apart")
        if rest.startswith("(") and rest.endswith(")") and rest.count("(") == 1:
            rest = rest[1:-1]
        found.append(f"{requirement}; {rest}" if rest else requirement)
    return found


def _package_files(package: str) -> dict[str, bytes]:
    found = importlib.util.find_spec(package)
    places = list(found.submodule_search_locations or []) if found is not None else []
    if not places:
        raise _broken(f"its package {package} is missing")
    base = Path(places[0])
    return {
        f"{package}/{path.relative_to(base).as_posix()}": path.read_bytes()
        for path in sorted(base.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _broken(what: str) -> HostFailure:
    return HostFailure(
        "this machine",
        "release",
        f"the agent cannot be packed: {what}",
        "Install fleetctl with pip (`pip install -e .` in its source folder)",
    )
