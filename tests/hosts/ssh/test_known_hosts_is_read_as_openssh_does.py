"""known_hosts: junk, patterns, hashes and markers; what ssh-keygen writes is what is understood."""

from __future__ import annotations

import base64
import subprocess
from pathlib import Path

import pytest
from fleet_lab.host import make_key, program

from fleet_controller.hosts.ssh.known_hosts import KnownHosts, Verdict, fingerprint, known_names, name_of


@pytest.fixture
def keys(tmp_path: Path) -> list[tuple[str, bytes]]:
    made = []
    for number in range(2):
        text = make_key(tmp_path / f"k{number}").with_suffix(".pub").read_text().split()
        made.append((f"{text[0]} {text[1]}", base64.b64decode(text[1])))
    return made


def judge(text: str, key: bytes, host: str = "gpu-a") -> Verdict:
    return KnownHosts.parse(Path("known_hosts"), text).judge((host,), key).verdict


def test_the_four_verdicts(keys: list[tuple[str, bytes]]) -> None:
    (mine, key), (other, _) = keys
    assert judge(f"gpu-a {mine}\n", key) is Verdict.TRUSTED
    assert judge(f"gpu-b {mine}\n", key) is Verdict.UNKNOWN
    assert judge(f"gpu-a {other}\n", key) is Verdict.CHANGED
    assert judge(f"gpu-a {mine}\n@revoked * {mine}\n", key) is Verdict.REVOKED
    assert judge(f"gpu-a {other}\ngpu-a {mine}\n", key) is Verdict.TRUSTED
    assert judge("", key) is Verdict.UNKNOWN


def test_a_certificate_authority_is_not_taken_for_a_host_key(keys: list[tuple[str, bytes]]) -> None:
    (mine, key), _ = keys
    answer = KnownHosts.parse(Path("x"), f"@cert-authority *.example.org,gpu-a {mine}\n").judge(
        ("gpu-a",), key
    )
    assert answer.verdict is Verdict.UNKNOWN
    assert [line.number for line in answer.lines] == [1]


def test_lines_that_mean_nothing_are_passed_over(keys: list[tuple[str, bytes]]) -> None:
    (mine, key), _ = keys
    junk = [
        "",
        "# a comment",
        "gpu-a",
        "gpu-a ssh-ed25519",
        "gpu-a ssh-ed25519 not*base64",
        "gpu-a ssh-ed25519 AAAA",
        "@unheard-of gpu-a " + mine,
        "@revoked",
        "@cert-authority gpu-a",
        "|1|broken|hash " + mine,
        "|1| " + mine,
        "\ufffd\x00\x1b[31m",
        "gpu-a ssh-rsa " + mine.split()[1],  # says one type, holds another
        "," + " " + mine,
        "x" * 100_000,
    ]
    known = KnownHosts.parse(Path("x"), "\n".join([*junk, f"gpu-a {mine} a comment"]))
    answer = known.judge(("gpu-a",), key)
    assert answer.verdict is Verdict.TRUSTED
    assert [line.number for line in answer.lines] == [len(junk) + 1]


def test_patterns_and_negation(keys: list[tuple[str, bytes]]) -> None:
    (mine, key), _ = keys
    assert judge(f"gpu-?,!gpu-b {mine}", key, "gpu-a") is Verdict.TRUSTED
    assert judge(f"gpu-?,!gpu-b {mine}", key, "gpu-b") is Verdict.UNKNOWN
    assert judge(f"[10.0.0.*]:2222 {mine}", key, name_of("10.0.0.7", 2222)) is Verdict.TRUSTED
    assert judge(f"[10.0.0.*]:2222 {mine}", key, name_of("10.0.0.7", 22)) is Verdict.UNKNOWN
    assert judge(f"GPU-A {mine}", key, name_of("Gpu-a", 22)) is Verdict.TRUSTED


@pytest.mark.parametrize("port", [22, 2222])
def test_names_hashed_by_ssh_keygen(port: int, keys: list[tuple[str, bytes]], tmp_path: Path) -> None:
    (mine, key), (_, stranger) = keys
    path = tmp_path / "known_hosts"
    path.write_text(f"{name_of('10.0.0.7', port)} {mine}\n")
    subprocess.run([program("ssh-keygen"), "-q", "-H", "-f", str(path)], check=True, capture_output=True)
    assert path.read_text().startswith("|1|")
    known = KnownHosts.read(path)
    assert known.judge((name_of("10.0.0.7", port),), key).verdict is Verdict.TRUSTED
    assert known.judge((name_of("10.0.0.7", port),), stranger).verdict is Verdict.CHANGED
    assert known.judge((name_of("10.0.0.8", port),), key).verdict is Verdict.UNKNOWN


def test_the_fingerprint_is_the_one_that_ssh_keygen_prints(
    keys: list[tuple[str, bytes]], tmp_path: Path
) -> None:
    argv = [program("ssh-keygen"), "-l", "-f", str(tmp_path / "k0.pub")]
    assert fingerprint(keys[0][1]) in subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def test_no_file_knows_nobody(tmp_path: Path, keys: list[tuple[str, bytes]]) -> None:
    assert KnownHosts.read(tmp_path / "none").judge(("gpu-a",), keys[0][1]).verdict is Verdict.UNKNOWN


def test_a_port_may_be_left_out_of_a_name_as_in_openssh(keys: list[tuple[str, bytes]]) -> None:
    (mine, key), (other, _) = keys
    names = known_names("10.0.0.7", 2222)

    def verdict(text: str) -> Verdict:
        return KnownHosts.parse(Path("x"), text).judge(names, key).verdict

    assert verdict(f"10.0.0.7 {mine}") is Verdict.TRUSTED
    assert verdict(f"10.0.0.7 {other}") is Verdict.UNKNOWN
    assert verdict(f"[10.0.0.7]:2222 {other}\n10.0.0.7 {mine}") is Verdict.CHANGED
    assert verdict(f"10.0.0.7 {mine}\n@revoked 10.0.0.7 {mine}") is Verdict.REVOKED
    assert known_names("Gpu-A", 22) == ("gpu-a",)


def test_several_files_are_one(keys: list[tuple[str, bytes]], tmp_path: Path) -> None:
    (mine, key), (other, _) = keys
    (tmp_path / "first").write_text(f"gpu-b {other}\n")
    (tmp_path / "second").write_text(f"\ngpu-a {mine}\n")
    known = KnownHosts.read(tmp_path / "first", tmp_path / "none", tmp_path / "second")
    answer = known.judge(("gpu-a",), key)
    assert answer.verdict is Verdict.TRUSTED
    assert [line.place for line in answer.lines] == [f"{tmp_path / 'second'}:2"]
