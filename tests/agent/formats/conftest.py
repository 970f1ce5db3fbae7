"""One small network as a file in every format, and files that are wrong in some way (write_files.py makes them)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

HERE = Path(__file__).parent


class Files:
    """Two folders; `sprung` exists once the trap among the pickles was unpickled."""

    def __init__(self, folder: Path, pickles: Path) -> None:
        self.folder = folder
        self.pickles = pickles
        self.sprung = pickles / "sprung"

    def expected(self, rows: list[list[float]]) -> list[list[float]]:
        """What the network makes of them, by numpy."""
        weights = load_file(self.folder / "net.safetensors")
        x = np.asarray(rows, dtype=np.float32)
        answer: list[list[float]] = np.tanh(x @ weights["layer.weight"].T + weights["layer.bias"]).tolist()
        return answer

    def sha256(self, name: str) -> str:
        folder = self.folder if (self.folder / name).exists() else self.pickles
        return hashlib.sha256((folder / name).read_bytes()).hexdigest()

    def weights(self, name: str, **more: Any) -> list[dict[str, Any]]:
        return [{"file": name, "sha256": self.sha256(name), **more}]

    def model(self, name: str, **settings: Any) -> dict[str, Any]:
        return {"name": name, "path": str(self.folder), **settings}


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    made = Files(tmp_path_factory.mktemp("files"), tmp_path_factory.mktemp("pickles"))
    command = [sys.executable, str(HERE / "write_files.py"), str(made.folder), str(made.pickles)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return made
