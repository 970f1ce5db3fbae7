"""Peers from PyPI, each in an environment of its own under .venv/peers: none decides what the others run with."""

from __future__ import annotations

import hashlib
import importlib.metadata
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "peers"


def interpreter(name: str, *requirements: str, lent: tuple[str, ...] = ()) -> Path:
    """The Python that has `requirements`; made at the first call. Raises RuntimeError with pip's words.

    `lent` packages are this environment's own files: torch is large, and every subject has to compute with the same.
    What they need besides is installed like the rest.
    """
    folder = FOLDER / name
    python = folder / "bin" / "python"
    stamp = folder / "made"
    pinned = [f"{package}=={importlib.metadata.version(package)}" for package in lent]
    key = hashlib.sha256("\n".join((sys.version, *requirements, *pinned)).encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == key:
        return python
    print(f"installing {', '.join(requirements)} for {name}", file=sys.stderr, flush=True)
    try:
        venv.create(folder, clear=True, with_pip=True)
        for package in lent:
            _lend(package, folder)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements, *pinned], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as failed:
        said = [line for line in (failed.stderr or "").splitlines() if not line.startswith("WARNING")]
        raise RuntimeError(f"cannot install {name}: {said[-1] if said else failed}") from None
    stamp.write_text(key, encoding="utf-8")
    return python


def _lend(package: str, folder: Path) -> None:
    """Links to the package's folders on the environment's path. pip takes it for installed, and adds what it needs."""
    files = importlib.metadata.files(package)
    if not files:
        raise RuntimeError(f"cannot lend {package}: it is not installed here as a wheel")
    (site,) = (folder / "lib").glob("python*/site-packages")
    links = folder / "lent"
    links.mkdir(exist_ok=True)
    for top in sorted({file.parts[0] for file in files} - {"..", "__pycache__"}):
        (links / top).symlink_to(Path(str(files[0].locate())).parents[len(files[0].parts) - 1] / top)
    (site / "lent.pth").write_text(f"{links}\n", encoding="utf-8")
