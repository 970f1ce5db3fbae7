"""Certificates made by ssh-keygen, whole and damaged."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from fleet_lab.host import make_key, program
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.hosts.ssh import certificate
from fleet_controller.hosts.ssh.certificate import BadCertificate, Certificate, certified_key


@pytest.fixture(scope="module")
def blob(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("certificates")
    return made(folder, "-h", "-n", "gpu-a,gpu-b")


def made(folder: Path, *options: str) -> bytes:
    authority, key = make_key(folder / "ca"), make_key(folder / "key")
    argv = [program("ssh-keygen"), "-q", "-s", str(authority), "-I", "an id", *options, f"{key}.pub"]
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)
    return base64.b64decode((folder / "key-cert.pub").read_text().split()[1])


def test_what_it_says(blob: bytes, tmp_path: Path) -> None:
    read = certificate.read(blob)
    assert (read.key_id, read.is_host, read.principals, read.critical) == (
        "an id",
        True,
        ("gpu-a", "gpu-b"),
        (),
    )
    assert read.key == certified_key(blob)
    assert read.trouble("gpu-a", 1.8e9) is None
    assert read.trouble("gpu-c", 1.8e9) == "it is for gpu-a, gpu-b, not for gpu-c"
    of_a_user = certificate.read(made(tmp_path, "-n", "gpu-a", "-O", "force-command=true"))
    assert of_a_user.trouble("gpu-a", 1.8e9) == "it is a user's certificate, not a host's"
    assert of_a_user.critical == ("force-command",)


def test_its_time_ends_where_it_says(blob: bytes) -> None:
    one = Certificate(b"", b"", "", True, (), since=100, until=200, critical=())
    assert [one.trouble("x", now) for now in (100, 199.9)] == [None, None]
    assert one.trouble("x", 99.9) == "it is not valid yet"
    assert one.trouble("x", 200) == "it has expired"
    marked = Certificate(b"", b"", "", True, (), since=0, until=200, critical=("verify-required",))
    assert "verify-required" in (marked.trouble("x", 1) or "")


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_not_a_bit_of_it_can_be_changed(blob: bytes, at: int, bit: int) -> None:
    changed = bytearray(blob)
    changed[at % len(blob)] ^= 1 << bit
    with pytest.raises(BadCertificate):
        certificate.read(bytes(changed))


@given(size=st.integers(0, 10_000))
def test_not_a_byte_of_it_can_be_left_out(blob: bytes, size: int) -> None:
    with pytest.raises(BadCertificate):
        certificate.read(blob[: size % len(blob)])
    with pytest.raises(BadCertificate):
        certificate.read(blob + b"\0" * (1 + size % 9))


@given(junk=st.binary(max_size=300))
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(BadCertificate):
        certificate.read(junk)
    with pytest.raises(BadCertificate):
        certified_key(junk)
