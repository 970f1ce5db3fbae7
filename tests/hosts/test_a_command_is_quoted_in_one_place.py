"""Command: what reaches the program is what was given, whatever it contains."""

from __future__ import annotations

import shlex
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_controller.hosts.command import MAX_LINE_BYTES, Command

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


@given(
    st.lists(TEXT, max_size=6),
    st.dictionaries(st.from_regex(r"[A-Za-z_][A-Za-z0-9_]*", fullmatch=True), TEXT),
)
def test_the_line_splits_into_the_same_words(words: list[str], env: dict[str, str]) -> None:
    split = shlex.split(Command(("printf", *words), env=env).line())
    assert split[-len(words) - 1 :] == ["printf", *words]
    assert split[: -len(words) - 1] == (["env", *(f"{k}={v}" for k, v in env.items())] if env else [])


@pytest.mark.parametrize("word", ["eval", "exec", "if", "while", "{", "cd", "alias", ".", "source", "trap"])
def test_a_word_of_the_shell_is_only_the_name_of_a_program(word: str) -> None:
    line = Command((word, "echo executed")).line()
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True)
    assert done.returncode in (126, 127)
    assert "executed" not in done.stdout


def test_environment_is_given_by_env() -> None:
    assert Command(("prog", "a b"), env={"K": "v w"}).line() == "env 'K=v w' prog 'a b'"


@pytest.mark.parametrize(
    ("argv", "env", "says"),
    [
        ((), {}, "name of a program"),
        (("",), {}, "name of a program"),
        (("a\0b",), {}, "NUL"),
        (("a",), {"K": "\0"}, "NUL"),
        (("a",), {"K=V": "x"}, "environment variable"),
        (("-c",), {}, "option"),
        (("K=V",), {}, "assignment"),
        (("a", "\ud800"), {}, "Unicode"),
        (("a", "x" * MAX_LINE_BYTES), {}, "longer"),
    ],
)
def test_what_no_program_can_be_given_is_refused(
    argv: tuple[str, ...], env: dict[str, str], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Command(argv, env=env)


def test_stdin_is_not_shown() -> None:
    assert "secret" not in repr(Command(("cat",), stdin=b"secret"))
