"""Small wheels of our own, an index that nobody answers on, and a way to a host that breaks."""

from __future__ import annotations

import base64
import hashlib
import socket
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fleet_lab.host import Host

MakeWheel = Callable[..., Path]


def build_wheel(
    folder: Path,
    name: str,
    version: str = "1",
    *,
    requires: tuple[str, ...] = (),
    tag: str = "py3-none-any",
    filler: int = 0,
) -> Path:
    """A wheel with one module that holds its version, one script, and `filler` bytes that do not compress."""
    info = f"{name}-{version}.dist-info"
    needs = "".join(f"Requires-Dist: {one}\n" for one in requires)
    files = {
        f"{name}/__init__.py": f'VERSION = "{version}"\n\n\ndef main() -> None:\n    print(VERSION)\n'.encode(),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{needs}".encode(),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n".encode(),
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}={name}:main\n".encode(),
    }
    if filler:
        files[f"{name}/filler.bin"] = hashlib.shake_128(name.encode()).digest(filler)
    rows = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()},{len(data)}"
        for path, data in files.items()
    ]
    files[f"{info}/RECORD"] = "\n".join([*rows, f"{info}/RECORD,,", ""]).encode()
    path = folder / f"{name}-{version}-{tag}.whl"
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for inside, data in files.items():
            archive.writestr(inside, data)
    return path


@pytest.fixture
def make_wheel() -> MakeWheel:
    return build_wheel


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A folder of wheels that takes the place of the package index."""
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pip that runs from here on reaches a package index: its port is closed."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{port}/simple")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_RETRIES", "0")


class Cable:
    """A TCP way to a host that is cut, as a cable is that is pulled, once `cut_when` says so; None: never."""

    def __init__(self, host: Host) -> None:
        self._to = (host.address, host.port)
        self.cut_when: Callable[[], bool] | None = None
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True, name="cable").start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self._to)
            except OSError:
                near.close()
                continue
            self._pairs.append((near, far))
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(16384):
                if self.cut_when is not None and self.cut_when():
                    self.cut()
                    return
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def cut(self) -> None:
        """Break every connection."""
        for pair in self._pairs:
            for end in pair:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        self.cut_when = None

    def close(self) -> None:
        self._server.close()
        self.cut()
        for pair in self._pairs:
            for end in pair:
                end.close()


@pytest.fixture
def cable(host: Host) -> Iterator[Cable]:
    made = Cable(host)
    yield made
    made.close()
