"""Life, gate, routes, command, log lines and figures of outside engines: no process, no socket, no clock."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleet_agent.outside import figures, route
from fleet_agent.outside.gate import Gate, Hopeless
from fleet_agent.outside.life import BACKOFF_MOST_S, Life
from fleet_agent.outside.order import BadCommand, Order, order
from fleet_agent.outside.words import LONGEST, Words
from fleet_wire.agent import ModelConfig
from fleet_wire.command import CommandConfig, MetricNames
from fleet_wire.refusal import Refusal


def life() -> Life:
    return Life("llm", start_timeout_s=60.0, hang_timeout_s=10.0)


def test_an_engine_is_ready_once_its_health_path_says_so() -> None:
    one = life()
    one.started(100.0)
    one.refused(103.0, "nothing listens on port 9 yet", silent=True)
    assert not one.ready
    assert one.reason(104.0) == (
        "the engine of model llm is starting, for 4 s so far (nothing listens on port 9 yet)"
    )
    assert one.doomed(159.0) is None
    assert one.answered(159.0)
    assert one.ready and one.reason(159.0) is None
    assert not one.answered(160.0)


def test_an_engine_that_is_not_ready_in_time_is_killed() -> None:
    one = life()
    one.started(0.0)
    one.refused(59.0, "/health answers 503", silent=False)
    assert one.doomed(59.9) is None
    assert one.doomed(60.0) == "was killed, since it was not ready after 60 s (/health answers 503)"


def test_silence_is_suffered_for_a_while_and_any_piece_of_an_answer_ends_it() -> None:
    one = life()
    one.started(0.0)
    one.answered(1.0)
    one.refused(4.0, "/health does not answer", silent=True)
    assert one.ready
    one.refused(6.0, "/health does not answer", silent=True)
    assert not one.ready
    one.moved(9.0)
    assert one.doomed(18.9) is None
    assert one.doomed(19.0) == "was killed, since it gave no sign of life for 10 s (/health does not answer)"


def test_an_engine_that_says_it_is_not_well_takes_no_calls_at_once_and_may_recover() -> None:
    one = life()
    one.started(0.0)
    one.answered(1.0)
    one.refused(2.0, "/health answers 503", silent=False)
    assert one.reason(2.0) == "the engine of model llm is not well: /health answers 503"
    assert one.answered(3.0) and one.ready


def test_a_stopped_process_is_killed_after_a_second() -> None:
    one = life()
    one.started(0.0)
    one.answered(1.0)
    one.paused(2.0, stopped=True)
    assert one.doomed(2.5) is None
    assert "stopped by a signal" in str(one.doomed(3.0))
    one.paused(3.0, stopped=False)
    assert one.doomed(3.0) is None


def test_three_starts_without_being_ready_are_a_failure_and_a_crash_later_is_not() -> None:
    one = life()
    delays = []
    for at in range(3):
        one.started(float(at))
        delays.append(one.ended(at + 0.5, "ended with status 1"))
    assert delays == [0.2, 0.4, None]
    assert one.state == "failed"
    assert one.reason(9.0) == "the engine of model llm ended with status 1 before it was ready, 3 times"

    other = life()
    for at in range(12):
        other.started(float(at))
        if at == 0:
            other.answered(0.5)
        last = other.ended(at + 0.9, "was killed by SIGKILL")
    assert last == BACKOFF_MOST_S and other.restarts == 12
    other.started(100.0)
    other.answered(101.0)
    assert other.ended(161.0, "was killed by SIGKILL") == 0.2


def test_the_gate_lets_so_many_in_and_so_many_wait() -> None:
    gate = Gate("llm", most_in=2, most_waiting=1)
    assert gate.enter(1, 0.0) and gate.enter(2, 0.0)
    assert not gate.enter(3, 0.0)
    with pytest.raises(Refusal, match="the queue of model llm is full"):
        gate.enter(4, 0.0)
    assert gate.leave(1.0) == 3
    assert (gate.inside, gate.waiting) == (2, 0)
    assert gate.leave(1.0) is None
    assert gate.inside == 1


def test_priority_goes_first_and_every_tenth_place_to_whoever_waits_longest() -> None:
    gate = Gate("llm", most_in=1, most_waiting=100)
    gate.enter(0, 0.0)
    for call in range(1, 6):
        gate.enter(call, 0.0)
    for call in range(6, 30):
        gate.enter(call, 0.0, priority=5)
    order = [gate.leave(None) for _ in range(20)]
    assert order[:9] == list(range(6, 15))
    assert order[9] == 1
    assert order[10:19] == list(range(15, 24))
    assert order[19] == 2


def test_a_call_whose_turn_would_come_too_late_is_refused_at_once() -> None:
    gate = Gate("llm", most_in=2, most_waiting=100)
    for call in range(6):
        gate.enter(call, 0.0)
    gate.leave(4.0)
    with pytest.raises(Hopeless, match=r"about 8\.00 s, longer than the request has"):
        gate.enter(7, 10.0, deadline=17.9)
    assert not gate.enter(8, 10.0, deadline=18.1)
    with pytest.raises(Refusal, match="was over"):
        gate.enter(9, 10.0, deadline=10.0)


@given(st.lists(st.tuples(st.sampled_from(["enter", "leave", "cancel"]), st.integers(0, 9)), max_size=80))
def test_no_place_is_lost_or_given_twice(steps: list[tuple[str, int]]) -> None:
    gate = Gate("llm", most_in=3, most_waiting=5)
    inside: set[int] = set()
    waiting: set[int] = set()
    for number, (step, value) in enumerate(steps):
        if step == "enter":
            try:
                (inside if gate.enter(number, 0.0, priority=value) else waiting).add(number)
            except Refusal:
                assert len(waiting) == 5
        elif step == "leave" and inside:
            inside.pop()
            following = gate.leave(1.0)
            if following is not None:
                waiting.remove(following)
                inside.add(following)
        elif step == "cancel" and waiting:
            one = min(waiting)
            assert gate.cancel(one) and not gate.cancel(one)
            waiting.remove(one)
        assert (gate.inside, gate.waiting) == (len(inside), len(waiting))
        assert len(inside) == 3 or not waiting


COMMANDS = {
    "llm": CommandConfig(argv=["x"]),
    "llm-2": CommandConfig(argv=["x"], paths=["/v1", "/generate"], served_name="org/Big Model"),
}


def claim(method: str, path: str, alone: bool = False, **headers: str) -> Any:
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return route.claimed(method, path, path, given, COMMANDS, alone)


@pytest.mark.parametrize(
    ("method", "path", "kind", "model", "onward"),
    [
        ("POST", "/v2/models/llm/infer", "relay", "llm", "/v2/models/llm/infer"),
        ("POST", "/v1/models/llm:predict", "relay", "llm", "/v1/models/llm:predict"),
        ("POST", "/v1/models/llm-2:predict", "relay", "llm-2", "/v1/models/org/Big%20Model:predict"),
        ("GET", "/v1/models/llm", "describe", "llm", ""),
        ("GET", "/v2/models/llm/ready", "ready", "llm", ""),
        ("GET", "/v2/models/llm/versions/3/ready", "ready", "llm", ""),
        ("GET", "/v2/models/llm", "relay", "llm", "/v2/models/llm"),
        ("GET", "/v2/models/llm-2", "describe", "llm-2", ""),
        ("POST", "/v1/chat/completions", "body", "", "/v1/chat/completions"),
    ],
)
def test_a_path_says_whose_a_call_is(method: str, path: str, kind: str, model: str, onward: str) -> None:
    found = claim(method, path)
    assert (found.kind, found.model, found.path) == (kind, model, onward)


@pytest.mark.parametrize(
    "path",
    [
        "/status",
        "/metrics",
        "/admin/drain",
        "/v1/models",
        "/v2/health/ready",
        "/v1/models/tiny:predict",
        "/v3/x",
    ],
)
def test_what_is_the_agents_own_is_not_claimed(path: str) -> None:
    assert claim("POST", path, alone=True) is None
    assert claim("GET", path, x_fleet_model="tiny") is None


def test_a_header_names_the_model_for_what_the_engine_declares_only() -> None:
    assert claim("POST", "/generate", x_fleet_model="llm-2").model == "llm-2"
    assert claim("POST", "/v1/audio", x_fleet_model="llm").model == "llm"
    for path in ("/generated", "/v1/../secret", "/generate/./x/.."):
        with pytest.raises(Refusal, match="is not asked for"):
            claim("POST", path, x_fleet_model="llm-2")
    with pytest.raises(Refusal, match="is not asked for"):
        claim("POST", "/v2/models/llm-2/infer")


def test_who_names_nobody_means_the_only_engine_there_is() -> None:
    one = {"llm": COMMANDS["llm"]}
    assert route.claimed("GET", "/v1/x", "/v1/x", {}, one, True).model == "llm"  # type: ignore[union-attr]
    assert route.claimed("GET", "/v1/x", "/v1/x", {}, one, False) is None
    assert claim("GET", "/v1/x", alone=True) is None  # two could be meant


def test_a_body_names_the_model_and_is_told_the_engines_own_name() -> None:
    asked = claim("POST", "/v1/chat/completions")
    path = "/v1/chat/completions"
    found, body = route.claimed_by_body(asked, path, b'{"model": "llm-2", "n": 1}', COMMANDS, False)
    assert found is not None and found.model == "llm-2"
    assert body == b'{"model":"org/Big Model","n":1}'
    found, body = route.claimed_by_body(asked, path, b'{"model": "llm", "n": 1}', COMMANDS, False)
    assert found is not None and body == b'{"model": "llm", "n": 1}'
    for other in (b'{"model": "tiny"}', b'{"model": 3}', b"[]", b"{", b""):
        assert route.claimed_by_body(asked, path, other, COMMANDS, False) == (None, other)


def test_headers_for_one_connection_do_not_go_on() -> None:
    headers = [
        (b"host", b"a"),
        (b"connection", b"close, X-Mine"),
        (b"x-mine", b"1"),
        (b"te", b"trailers"),
        (b"transfer-encoding", b"chunked"),
        (b"authorization", b"Bearer s"),
        (b"accept", b"*/*"),
        (b"x-request-id", b"theirs"),
    ]
    assert route.onward(headers, b"id", True) == [("accept", "*/*"), ("x-request-id", "id")]
    assert ("authorization", "Bearer s") in route.onward(headers, b"id", False)
    answer = [(b"Set-Cookie", b"a"), (b"Set-Cookie", b"b"), (b"Keep-Alive", b"5"), (b"Date", b"today")]
    assert route.back(answer) == [(b"set-cookie", b"a"), (b"set-cookie", b"b")]


def made(command: dict[str, Any], **given: Any) -> Order:
    config = ModelConfig(name="llm", path="/m", runtime="command", command=CommandConfig(**command))
    filling = {
        "device": "cuda:0,cuda:1",
        "python": "/venv/bin/python",
        "has_folder": True,
        "port": 7,
        "metrics_port": 8,
    }
    return order(config, {"PATH": "/bin", "PYTHONPATH": "/ours"}, **(filling | given))


def test_the_command_is_filled_in_word_by_word() -> None:
    found = made(
        {
            "argv": ["serve", "--port={port}", '{"json": 1}', "{{port}}", "{host}", "{path}"],
            "env": {"CUDA_VISIBLE_DEVICES": "{device_index}", "NAME": "{name} {version}"},
        }
    )
    assert found.argv == ("serve", "--port=7", '{"json": 1}', "{{port}}", "127.0.0.1", "/m")
    assert found.env["CUDA_VISIBLE_DEVICES"] == "0,1"
    assert found.env["NAME"] == "llm 1"
    assert found.env["PATH"] == "/venv/bin:/bin"
    assert "PYTHONPATH" not in found.env
    assert found.folder == "/m"
    assert made({"argv": ["x"]}, device="cpu", has_folder=False).folder is None
    assert made({"argv": ["x"], "folder": "sub"}).folder == "/m/sub"
    assert made({"argv": ["x"], "folder": "/else"}).folder == "/else"
    with pytest.raises(BadCommand, match=r"the command has \{prot\}; known are host, port"):
        made({"argv": ["x", "{prot}"]})


def test_metrics_are_asked_on_their_own_port_where_the_command_has_one() -> None:
    names = {"metrics": {"waiting": "w"}}
    assert made({"argv": ["x"], **names}).metrics_port == 7
    assert made({"argv": ["x", "{metrics_port}"], **names}).metrics_port == 8


def test_figures_are_read_by_name_and_not_by_its_beginning() -> None:
    text = (
        "# TYPE vllm:num_requests_waiting gauge\n"
        'vllm:num_requests_waiting{model_name="a}b",engine="0"} 3.0\n'
        'vllm:num_requests_waiting{engine="1"} 4.0\n'
        'vllm:num_requests_waiting_total{engine="1"} 400.0\n'
        "vllm:kv_cache_usage_perc 0.5\nbroken line here {\n"
    )
    names = MetricNames(waiting="vllm:num_requests_waiting", running="gone", cache="vllm:kv_cache_usage_perc")
    assert figures.read(text, names) == figures.Figures(waiting=7.0, running=None, cache_use=0.5)
    assert figures.read("a NaN\n", MetricNames(waiting="a")) == figures.Figures()
    with pytest.raises(ValueError):
        figures.read("a{ what\n", MetricNames(waiting="a"))


def test_a_flood_of_lines_is_counted_and_not_shown() -> None:
    words = Words()
    assert len(words.feed(b"line\n" * 1000, 0.0)) == 200
    assert words.feed(b"line\n", 0.001) == []
    assert words.feed(b"again\n", 1.0)[0] == "(801 lines left out: it writes more than 50 a second)"


def test_a_line_is_cut_cleaned_and_comes_once_whole() -> None:
    words = Words()
    assert words.feed(b"half", 0.0) == []
    assert words.feed(b" and half\r\n\x1b[31mred\x1b[0m\ttab\x07\n", 0.0) == ["half and half", "red\ttab"]
    assert words.feed(b"10%\r20%\r", 0.0) == ["10%", "20%"]
    assert words.feed(b"x" * 5000, 0.0) == ["x" * LONGEST + "..."]
    assert words.feed(b"x" * 5000 + b"\nnext\n", 0.0) == ["next"]
    assert words.feed("ü\n".encode("latin-1"), 0.0) == ["\ufffd"]
    assert words.last().endswith("next / \ufffd")


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_whatever_is_written_can_be_logged(pieces: list[bytes]) -> None:
    words = Words()
    for piece in pieces:
        for line in words.feed(piece, 0.0):
            assert line.replace("\t", " ").isprintable() or "\ufffd" in line or not line.isascii()
            assert len(line) <= LONGEST + 3
