"""Whatever the bytes are: a FleetSpec or a SpecError, soon, in little memory."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleet_controller.spec import SpecError, load

Write = Callable[[str | bytes], Path]

some_settings = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
scraps = st.sampled_from(
    [
        "fleet: demo\n",
        "hosts:\n",
        "  - {name: a, address: local}\n",
        "  - name: ",
        "[",
        "]",
        "{",
        "}",
        ": ",
        "- ",
        "&a ",
        "*a ",
        "<<: ",
        "!!str ",
        "%YAML 1.1\n",
        "---\n",
        "...\n",
        "|\n",
        ">\n",
        '"\\x00"',
        '"\\uD800"',
        '"\\UFFFFFFFF"',
        "'",
        '"',
        "#",
        "\t",
        "\n",
        "  ",
        "pools: ",
        "scaling: ",
        "min_servers: ",
        "1e999",
        "-.inf",
        ".nan",
        "null",
        "true",
        "~",
        "0x",
        "9" * 30,
        "@",
        "`",
        "? ",
        "\u2028",
        "\ufeff",
        "models:\n",
        "source: ~nobody/x\n",
        'source: "a\\0b"\n',
        "entrypoint: m:M\n",
        "gpu-[1:3]",
        "ssh: {jump: a}",
        "power: {via: a}",
    ]
)
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from(["a", "local", "*", "[1:2]", "~x"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)


def reads_or_refuses(path: Path) -> None:
    try:
        spec = load(path)
    except SpecError as error:
        assert error.problems
        assert all(line.isprintable() for line in str(error).split("\n"))
    else:
        assert spec.hosts


@some_settings
@given(data=st.binary(max_size=200))
def test_any_bytes(data: bytes, write_once: Write) -> None:
    reads_or_refuses(write_once(data))


@some_settings
@given(parts=st.lists(scraps, max_size=25))
def test_any_scraps_of_yaml(parts: list[str], write_once: Write) -> None:
    reads_or_refuses(write_once("".join(parts).encode("utf-8", "surrogatepass")))


@some_settings
@given(data=st.data())
def test_any_value_in_any_place(data: st.DataObject, good: str, write_once: Write) -> None:
    tree = {
        "fleet": "demo",
        "defaults": {
            "ssh": {"jump": "b"},
            "power": {"driver": "command"},
            "agent": {"port": 1},
            "install": {},
        },
        "hosts": [
            {"name": "a", "address": "local", "ssh": {"port": 1}, "power": {"via": "a"}, "labels": {"x": "y"}}
        ],
        "models": [{"name": "tiny", "source": "tiny", "entrypoint": "model:Tiny", "options": {"a": 1}}],
        "pools": [
            {
                "name": "p",
                "hosts": ["a"],
                "models": ["tiny"],
                "scaling": {
                    "steps": [{"when": "rps > 1", "add": 1}],
                    "schedules": [{"cron": "0 8 * * *", "timezone": "UTC", "servers": 1}],
                    "latency": {"target_ms": 1},
                    "min_servers": 1,
                    "idle": {},
                },
            }
        ],
        "balancer": {"listen": "127.0.0.1:1", "queue": {"size": 1}},
        "controller": {"state": "sqlite:///default"},
    }
    for _ in range(data.draw(st.integers(1, 3))):
        block: object = tree
        while True:
            keys = list(block) if isinstance(block, dict) else list(range(len(block)))  # type: ignore[arg-type]
            if not keys:
                break
            key = data.draw(st.sampled_from(keys))
            if not isinstance(block[key], dict | list) or data.draw(st.booleans()):  # type: ignore[index]
                block[key] = data.draw(values)  # type: ignore[index]
                break
            block = block[key]  # type: ignore[index]
    reads_or_refuses(write_once(json.dumps(tree)))


@pytest.fixture
def write_once(tmp_path: Path) -> Write:
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "model.py").write_text("class Tiny: ...\n")

    def put(text: str | bytes) -> Path:
        path = tmp_path / "fleet.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return path

    return put


def test_no_file_a_folder_and_a_file_over_1_mib(tmp_path: Path) -> None:
    big = tmp_path / "big.yaml"
    big.write_bytes(b"fleet: demo # " + b"x" * 2**20)
    for path, said in (
        (tmp_path / "none.yaml", "no such file"),
        (tmp_path, "is a folder"),
        (big, "over 1 MiB"),
    ):
        with pytest.raises(SpecError) as caught:
            load(path)
        assert str(caught.value).startswith(f"{path}: ") and said in str(caught.value)
    with pytest.raises(SpecError, match="over 1 MiB"):
        load(Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_file_without_permission(write: Write, good: str) -> None:
    path = write(good)
    path.chmod(0)
    with pytest.raises(SpecError, match="can't be read: Permission denied"):
        load(path)


BOMBS = {
    "aliases of lists": "l0: &l0 [a, a, a, a, a, a, a, a, a, a]\n"
    + "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]\n" for i in range(1, 12)),
    "merges of mappings": "l0: &l0 {a: 1, b: 2}\n"
    + "".join(f"l{i}: &l{i} {{a: *l{i - 1}, b: *l{i - 1}, <<: *l{i - 1}}}\n" for i in range(1, 60)),
    "one under another": "".join(f"l{i}: &l{i} [{f'*l{i - 1}' if i else 1}]\n" for i in range(20000)),
    "open brackets": "[" * 1_000_000,
    "open braces": "{a: " * 250_000,
    "block lists": "- " * 500_000,
    "many values": "a: [" + "1," * 500_000,
    "long text": 'a: "' + "x" * 1_000_000,
    "many keys": "".join(f"k{i}: 1\n" for i in range(80_000)),
    "question marks": "? " * 500_000,
    "anchors": "a: " + "&x " * 300_000,
    "tags": "a: " + "!x " * 300_000,
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_soon_in_little_memory(name: str, tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text(BOMBS[name][: 2**20])
    # A process of its own, so that its peak is its own; an allocation over the limit would end it.
    program = (
        "import sys, pathlib\n"
        "from fleet_controller.spec import SpecError, load\n"
        "def peak():\n"
        "    status = pathlib.Path('/proc/self/status').read_text()\n"
        "    return int(status.partition('VmHWM:')[2].split()[0])\n"
        "before = peak()\n"
        "try:\n    load(pathlib.Path(sys.argv[1]))\n"
        "except SpecError as error:\n    print(error)\n"
        "print(peak() - before, file=sys.stderr)\n"
    )
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, timeout=60
    )
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    assert done.returncode == 0 and done.stdout.startswith(f"{path}:"), done
    assert int(done.stderr) < 100 * 1024  # KiB more than before
    assert spent < 15  # seconds of processor time; most take less than one
