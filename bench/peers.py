"""Peers from PyPI, each in an environment of its own under .venv/peers: none decides what the others run with."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / ".venv" / "peers"


def interpreter(name: str, *requirements: str) -> Path:
    """The Python that has `requirements`; made at the first call. Raises RuntimeError with pip's words."""
    folder = FOLDER / name
    python = folder / "bin" / "python"
    stamp = folder / "made"
    key = hashlib.sha256("\n".join((sys.version, *requirements)).encode()).hexdigest()
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == key:
        return python
    print(f"installing {', '.join(requirements)} for {name}", file=sys.stderr, flush=True)
    try:
        venv.create(folder, clear=True, with_pip=True)
        pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as failed:
        said = [line for line in (failed.stderr or "").splitlines() if not line.startswith("WARNING")]
        raise RuntimeError(f"cannot install {name}: {said[-1] if said else failed}") from None
    stamp.write_text(key, encoding="utf-8")
    return python
