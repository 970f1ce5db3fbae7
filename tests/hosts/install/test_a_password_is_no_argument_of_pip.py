from __future__ import annotations

from fleet_controller.hosts.keeper.discreet import discreet

URL = "https://reader:s3cret@pypi.example.com/simple"


def test_what_holds_a_password_goes_into_a_file() -> None:
    args = ["--pre", "-i", URL, f"--extra-index-url={URL}2", "-f", URL, "--no-cache-dir"]
    stays, lines = discreet(args)
    assert stays == ["--pre", "--no-cache-dir"]
    assert lines == [f"--index-url {URL}", f"--extra-index-url {URL}2", f"--find-links {URL}"]


def test_the_rest_stays_as_it_is() -> None:
    args = [
        "--index-url",
        "https://pypi.example.com/simple",
        "--find-links=/wheels",
        "-f",
        "https://a:b@c/x y",
        "-i",
    ]
    stays, lines = discreet(args)
    assert lines == []
    assert stays == args


def test_nothing_that_a_file_of_requirements_reads_otherwise_is_moved() -> None:
    for value in (
        "https://a:${HOME}@c",
        "https://a:b@c #x",
        'https://a:"b@c',
        "https://a:b@c\n-r /etc/passwd",
    ):
        assert discreet(["-i", value]) == (["-i", value], [])
