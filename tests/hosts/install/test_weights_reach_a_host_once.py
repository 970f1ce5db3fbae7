"""Weights are named by their content: sent once, from a file, a web server or a mount, and hashed before they serve."""

from __future__ import annotations

import hashlib
import http.server
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from fleet_lab.host import Host

from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.install import release as releases
from fleet_controller.hosts.install.release import Release
from fleet_controller.hosts.install.weights import Weights, WeightsFile
from fleet_controller.hosts.machine import Machine
from fleet_controller.hosts.machines import Machines
from fleet_controller.spec import FleetSpec

FleetOf = Callable[..., FleetSpec]
CONTENT = os.urandom(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
NAME = "models/tiny/model.safetensors"


@pytest.fixture
def machine(host: Host, fleet_of: FleetOf, state: Path) -> Iterator[Machine]:
    with Machines(
        fleet_of([{**host.entry(), "install": {"interpreter": sys.executable}}]), state
    ) as machines:
        yield machines.machine("h1")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    path.write_bytes(CONTENT)
    return path


def with_weights(release: Release, weights: WeightsFile, key: str = "") -> Release:
    return replace(release, weights=(weights,), key=key or release.key)


def linked(host: Host, release: Release) -> Path:
    return host.home / ".fleetctl" / "test" / "h1" / "releases" / release.key / NAME


def test_another_release_with_the_same_weights_sends_only_itself(
    machine: Machine, host: Host, stub_release: Release, file: Path
) -> None:
    first = with_weights(stub_release, WeightsFile(NAME, SHA256, file=file))
    assert machine.install(first).sent_bytes > len(CONTENT)
    assert linked(host, first).read_bytes() == CONTENT
    second = with_weights(stub_release, WeightsFile(NAME, SHA256, file=file), "e" * 20)
    assert machine.install(second).sent_bytes < 100_000
    assert linked(host, second).resolve() == linked(host, first).resolve()
    assert machine.install(second).sent_bytes == 0


def test_damaged_weights_are_never_started_and_sent_again(
    machine: Machine, host: Host, stub_release: Release, file: Path, fleet_of: FleetOf
) -> None:
    wanted = with_weights(stub_release, WeightsFile(NAME, SHA256, file=file))
    machine.install(wanted)
    there = linked(host, wanted).resolve()
    with there.open("r+b") as out:
        out.write(bytes([CONTENT[0] ^ 1]))  # the same size
    with pytest.raises(HostFailure) as caught:
        machine.start(wanted, (), "a1", "token")
    assert caught.value.kind == "release"
    assert "model.safetensors" in caught.value.cause
    assert machine.install(wanted).sent_bytes >= len(CONTENT)
    assert there.read_bytes() == CONTENT
    os.utime(there, (1, 1))  # touched, and whole all the same: hashed, not sent
    with pytest.raises(HostFailure):
        machine.start(wanted, (), "a1", "token")
    assert machine.install(wanted).sent_bytes == 0


def test_weights_on_a_mount_are_used_in_place_and_hashed(
    machine: Machine, host: Host, stub_release: Release, tmp_path: Path
) -> None:
    mount = tmp_path / "mnt" / "x.safetensors"
    wanted = with_weights(stub_release, WeightsFile(NAME, SHA256, mount=str(mount)))
    with pytest.raises(HostFailure) as caught:
        machine.install(wanted)
    assert f"{mount} are not there" in caught.value.cause
    mount.parent.mkdir()
    mount.write_bytes(CONTENT[:-1] + b"?")
    with pytest.raises(HostFailure) as caught:
        machine.install(wanted)
    assert "is pinned" in caught.value.cause
    mount.write_bytes(CONTENT)
    assert machine.install(wanted).sent_bytes < 100_000
    assert linked(host, wanted).readlink() == mount
    assert machine.install(wanted).sent_bytes == 0
    os.utime(mount, (1, 1))
    with pytest.raises(HostFailure, match="not what was checked"):
        machine.start(wanted, (), "a1", "token")


@pytest.mark.machine
def test_a_disk_without_room_gets_nothing_and_the_next_try_completes(
    machine: Machine, host: Host, stub_release: Release, file: Path
) -> None:
    wanted = with_weights(stub_release, WeightsFile(NAME, SHA256, file=file))
    host.with_full_disk(2_000_000)
    with pytest.raises(HostFailure) as caught:
        machine.install(wanted)
    assert caught.value.kind == "disk"
    assert "nothing was sent" in caught.value.cause
    left = [
        path for path in (host.home / ".fleetctl").rglob("*") if path.is_file() and path.stat().st_size > 4096
    ]
    assert left == []
    host.with_room_again()
    assert machine.install(wanted).sent_bytes > len(CONTENT)


def test_a_file_that_is_not_what_is_pinned_is_not_sent(
    machine: Machine, host: Host, stub_release: Release, file: Path
) -> None:
    file.write_bytes(b"another model")
    with pytest.raises(HostFailure, match="is pinned"):
        machine.install(with_weights(stub_release, WeightsFile(NAME, SHA256, file=file)))
    assert not list((host.home / ".fleetctl" / "weights").glob("*/file"))


class Server(http.server.ThreadingHTTPServer):
    """Serves CONTENT with ranges; each answer ends after `cut` bytes."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []
        self.cut: int | None = None
        self.ranges = True
        self.content = CONTENT

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/models/x.safetensors"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.server.asked.append(wanted)
        if self.path.startswith("/none"):
            self.send_error(404)
            return
        begin = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and self.server.ranges else 0  # type: ignore[index]
        data = self.server.content[begin:]
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: self.server.cut])
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    thread = threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_an_address_is_fetched_once_and_goes_on_where_it_was_cut(
    server: Server, machine: Machine, host: Host, stub_release: Release
) -> None:
    server.cut = 1_000_000
    wanted = with_weights(stub_release, WeightsFile(NAME, SHA256, url=server.url))
    assert machine.install(wanted).sent_bytes > len(CONTENT)
    assert server.asked == [None, "bytes=1000000-", "bytes=2000000-"]
    assert linked(host, wanted).read_bytes() == CONTENT
    shutil.rmtree(host.home / ".fleetctl")  # another host, say
    machine.install(wanted)
    assert len(server.asked) == 3, "it is here now"


def test_a_server_without_ranges_begins_anew_and_one_with_another_file_is_refused(
    server: Server, tmp_path: Path
) -> None:
    weights = Weights(tmp_path / "cache")
    wanted = WeightsFile(NAME, SHA256, url=server.url)
    (tmp_path / "cache" / "weights").mkdir(parents=True)
    (tmp_path / "cache" / "weights" / f".{SHA256}.part").write_bytes(CONTENT[:5000])
    server.ranges = False
    found = weights.get(wanted, lambda text: None)
    assert found.read_bytes() == CONTENT
    other = replace(wanted, sha256="0" * 64)
    with pytest.raises(HostFailure, match=f"has the sha256 {SHA256}"):
        weights.get(other, lambda text: None)
    with pytest.raises(HostFailure, match="answers 404"):
        weights.get(replace(other, url=server.url.replace("/models", "/none")), lambda text: None)
    found.write_bytes(b"damaged")
    assert Weights(tmp_path / "cache").get(wanted, lambda text: None).read_bytes() == CONTENT, "fetched anew"


def test_pinned_files_of_a_model_are_weights_and_not_packed(fleet_of: FleetOf, tmp_path: Path) -> None:
    spec = fleet_of([{"name": "here", "address": "local"}])
    source = spec.models[0].source
    assert source is not None
    (source / "model.safetensors").write_bytes(CONTENT)
    pinned = type(spec.models[0]).model_validate(
        {
            **spec.models[0].model_dump(by_alias=True),
            "weights": [{"file": "model.safetensors", "sha256": SHA256}],
        }
    )
    loose = releases.build(spec.models)
    built = releases.build([pinned])
    assert loose.size > len(CONTENT)
    assert built.size < loose.size - len(CONTENT) + 10
    assert built.weights == (WeightsFile(NAME, SHA256, file=source / "model.safetensors"),)
