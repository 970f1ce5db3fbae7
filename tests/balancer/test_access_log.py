"""What is written of a request, which requests are, and that no disk ever keeps one waiting."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_balancer.telemetry import access_log
from fleet_balancer.telemetry.access_log import AccessLogError, AccessLogWriter
from fleet_wire.balancer import AccessLog

Make = Callable[..., AccessLogWriter]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """make("access.log", sample=1.0): a writer that writes."""
    made: list[AccessLogWriter] = []

    def start(path: str | Path = "access.log", sample: float = 1.0) -> AccessLogWriter:
        writer = AccessLogWriter(AccessLog(path=str(tmp_path / path), sample=sample))
        writer.start()
        made.append(writer)
        return writer

    yield start
    for writer in made:
        writer.stop()


def request(writer: AccessLogWriter, number: int = 0, status: int = 200, **other: Any) -> None:
    now = time.monotonic()
    said: dict[str, Any] = {
        "request_id": b"id-%d" % number, "status": status, "arrived": now - 0.25, "now": now, "client": b"127.0.0.1",
        "method": b"POST", "target": b"/v1/models/m:predict", "sent": 17, "host": "gpu-a", "pool": "default",
        "model": "m", "key": "alice", "retries": 1, "refused": None,
    } | other  # fmt: skip
    writer.record(*said.values())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def flushed(writer: AccessLogWriter, path: Path, count: int) -> list[dict[str, Any]]:
    writer.flush(time.monotonic())
    deadline = time.monotonic() + 10
    while not path.exists() or path.read_bytes().count(b"\n") < count:
        assert time.monotonic() < deadline, "the lines were not written"
        time.sleep(0.005)
    return lines(path)


def test_a_line_says_who_asked_for_what_and_how_it_went(make: Make, tmp_path: Path) -> None:
    writer = make()
    request(writer)
    request(writer, 1, 401, host=None, pool=None, model=None, key=None, retries=0, refused="unauthorized")
    good, refused = flushed(writer, tmp_path / "access.log", 2)
    assert abs(good.pop("at") - (time.time() - 0.25)) < 1.0
    assert good == {
        "request_id": "id-0", "client": "127.0.0.1", "method": "POST", "target": "/v1/models/m:predict",
        "status": 200, "bytes": 17, "duration_ms": 250.0, "host": "gpu-a", "pool": "default", "model": "m",
        "key": "alice", "retries": 1, "refused": None,
    }  # fmt: skip
    assert (refused["status"], refused["refused"], refused["host"], refused["key"]) == (
        401,
        "unauthorized",
        None,
        None,
    )
    assert (tmp_path / "access.log").stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(
    ("target", "written"),
    [
        (b"/a?api_key=s3cret", "/a"),
        (b"/a?", "/a"),
        (b'/"q"\\', '/"q"\\'),
        (b"/" + b"x" * 5000, "/" + "x" * 1023),
    ],
)
def test_a_query_is_never_written_and_no_target_breaks_a_line(
    make: Make, tmp_path: Path, target: bytes, written: str
) -> None:
    writer = make()
    request(writer, target=target, request_id=b'"id\\', model='m"\n\u00e9\\', key="k")
    [line] = flushed(writer, tmp_path / "access.log", 1)
    assert (line["target"], line["request_id"], line["model"]) == (written, '"id\\', 'm"\n\u00e9\\')


def test_a_sample_is_the_same_for_the_same_ids_and_errors_are_always_in_it(
    make: Make, tmp_path: Path
) -> None:
    one, other, all_of_them = make("one.log", 0.1), make("other.log", 0.1), make("all.log", 1.0)
    for number in range(5000):
        for writer in (one, other, all_of_them):
            request(writer, number, 500 if number % 1000 == 0 else 200)
    written = flushed(all_of_them, tmp_path / "all.log", 5000)
    one.stop()
    other.stop()
    sampled = [line["request_id"] for line in lines(tmp_path / "one.log")]
    assert sampled == [line["request_id"] for line in lines(tmp_path / "other.log")]
    assert 400 < len(sampled) < 600
    assert len(written) == 5000
    assert {f"id-{n}" for n in range(0, 5000, 1000)} <= set(sampled)


def test_a_sample_of_nothing_still_has_the_refusals(make: Make, tmp_path: Path) -> None:
    writer = make(sample=0.0)
    request(writer, 1)
    request(writer, 2, 429, refused="too_many_requests")
    request(writer, 3, 499)
    assert [line["status"] for line in flushed(writer, tmp_path / "access.log", 2)] == [429, 499]


@pytest.mark.parametrize("how", ["moved", "removed", "told"])
def test_a_log_that_was_rotated_is_made_anew(
    make: Make, tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "_LOOK_S", 0.0 if how != "told" else 1e9)
    path, old = tmp_path / "access.log", tmp_path / "access.log.1"
    writer = make()
    request(writer, 1)
    flushed(writer, path, 1)
    if how == "removed":
        path.unlink()
    else:
        path.rename(old)
    if how == "told":
        writer.reopen()
    request(writer, 2)
    assert [line["request_id"] for line in flushed(writer, path, 1)] == ["id-2"]
    assert how == "removed" or [line["request_id"] for line in lines(old)] == ["id-1"]


def test_a_full_disk_costs_lines_and_is_said_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "access.log"
    writer = make()
    really, full = os.write, [True]

    def write(descriptor: int, data: bytes) -> int:
        if descriptor != writer._descriptor or not full[0]:
            return really(descriptor, data)
        if len(data) > 40:
            return really(descriptor, data[:40])  # what is left of the disk
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(access_log.os, "write", write)
    with caplog.at_level(logging.INFO):
        for number in range(3):
            request(writer, number)
            writer.flush(time.monotonic())
        deadline = time.monotonic() + 10
        while writer.dropped < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        assert writer.dropped == 3
        full[0] = False
        request(writer, 9)
        writer.flush(time.monotonic())
        writer.stop()
    assert [r.levelname for r in caplog.records] == ["ERROR", "INFO"]
    assert "No space left on device" in caplog.text
    assert json.loads(path.read_text().splitlines()[-1])["request_id"] == "id-9"


def test_a_disk_that_hangs_keeps_nobody_waiting_and_fills_no_memory(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access_log, "MOST_WAITING", 10_000)
    reader, pipe = os.pipe()  # nobody reads it: writing hangs once its buffer is full
    writer = make()
    os.dup2(pipe, writer._descriptor)
    monkeypatch.setattr(AccessLogWriter, "_follow", lambda self: None)
    began = time.monotonic()
    for number in range(2000):
        request(writer, number)
        if number % 20 == 0:
            writer.flush(time.monotonic())
    assert time.monotonic() - began < 2.0
    assert writer.dropped > 500
    os.set_blocking(reader, False)
    deadline = time.monotonic() + 10
    while writer._handed > writer._done and time.monotonic() < deadline:
        try:
            os.read(reader, 1 << 20)
        except BlockingIOError:
            time.sleep(0.005)
    os.close(reader)
    os.close(pipe)


def test_a_log_that_can_not_be_opened_is_refused_at_the_start(tmp_path: Path) -> None:
    writer = AccessLogWriter(AccessLog(path=str(tmp_path / "nowhere" / "access.log")))
    with pytest.raises(AccessLogError, match=r"the access log .*access\.log can't be written: No such file"):
        writer.start()
