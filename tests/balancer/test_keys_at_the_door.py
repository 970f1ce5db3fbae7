"""API keys and the access log in a real balancer: who comes in, what a host sees of a key, what is written."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fleet_balancer.process.options import UsageError, read_options

Start = Callable[..., Any]
KEY, OTHER, SLOW = "fleet-alice-key", "fleet-bob-key", "fleet-slow-key"


def key(name: str, text: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "sha256": hashlib.sha256(text.encode()).hexdigest(), **more}


class Door:
    """A balancer that asks for keys and writes an access log."""

    def __init__(self, start: Start, folder: Path, **config: Any) -> None:
        self.log = folder / "access.log"
        file = folder / "config.json"
        ports = {"listen": "127.0.0.1:0", "admin": "127.0.0.1:0"}
        file.write_text(json.dumps({**ports, "access_log": {"path": str(self.log)}, **config}))
        self._start = lambda: start("--config", str(file))
        self.restart()

    def restart(self) -> None:
        self.balancer = self._start()
        self.client = http.client.HTTPConnection("127.0.0.1", self.balancer.port, timeout=10)

    def put(self, origin: Any, keys: list[dict[str, Any]] | None, **host: Any) -> None:
        pools = [{"name": "default", "models": [{"name": "a"}]}, {"name": "other", "models": [{"name": "b"}]}]
        hosts = [
            {"name": name, "pool": name, "address": origin.address, **host} for name in ("default", "other")
        ]
        code, body = self.balancer.ask("PUT", "/backends", {"pools": pools, "backends": hosts, "keys": keys})
        assert code == 200, body
        until = time.monotonic() + 10
        while not all(b["healthy"] for b in self.balancer.status()["backends"]):
            assert time.monotonic() < until
            time.sleep(0.02)

    def ask(
        self, headers: dict[str, str], path: str = "/seen", body: bytes | None = None
    ) -> tuple[int, bytes]:
        self.client.request("GET" if body is None else "POST", path, body, {"x-fleet-model": "a", **headers})
        self.reply = self.client.getresponse()
        return self.reply.status, self.reply.read()

    def logged(self, count: int) -> list[dict[str, Any]]:
        until = time.monotonic() + 10
        while not self.log.exists() or self.log.read_bytes().count(b"\n") < count:
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


@pytest.fixture(scope="module")
def host(starters: tuple[Start, Start]) -> Any:
    return starters[0]("a")


@pytest.fixture(scope="module")
def door(starters: tuple[Start, Start], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    made = Door(starters[1], tmp_path_factory.mktemp("door"), keys_required=True)
    yield made
    made.client.close()


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_before_it_knows_the_keys_nobody_is_let_in_nor_kept_waiting(door: Door) -> None:
    began = time.monotonic()
    assert door.ask(bearer(KEY))[0] == 503
    assert door.reply.headers["retry-after"] == "1"
    assert time.monotonic() - began < 2


def test_a_good_key_comes_in_and_no_host_ever_sees_it(door: Door, host: Any) -> None:
    door.put(host, [key("alice", KEY), key("bob", OTHER, pools=["other"])])
    for headers in (bearer(KEY), {"x-api-key": KEY}, {**bearer(KEY), "X-API-Key": OTHER}):
        code, seen = door.ask(headers)
        assert code == 200
        assert (
            b"fleet-" not in seen
            and b"x-api-key" not in seen.lower()
            and b"authorization" not in seen.lower()
        )
    door.put(host, [key("alice", KEY)], token="agent-token")
    code, seen = door.ask(bearer(KEY))
    assert b"bearer agent-token" in seen.lower() and KEY.encode() not in seen


@pytest.mark.parametrize(
    "headers", [{}, bearer("fleet-guess"), {"x-api-key": "x"}, {"Authorization": "Basic QQ=="}]
)
def test_others_are_refused_on_a_connection_that_goes_on(
    door: Door, host: Any, headers: dict[str, str]
) -> None:
    door.put(host, [key("alice", KEY)])
    code, body = door.ask(headers, body=b"x" * 1000)
    assert code == 401
    assert json.loads(body)["error"]["code"] == "unauthorized"
    assert door.reply.headers["www-authenticate"] == "Bearer"
    assert door.ask(bearer(KEY), body=b"y")[0] == 200


def test_a_key_for_another_pool_is_refused(door: Door, host: Any) -> None:
    door.put(host, [key("alice", KEY), key("bob", OTHER, pools=["other"])])
    code, body = door.ask(bearer(OTHER))
    assert (code, json.loads(body)["error"]["code"]) == (403, "forbidden")
    assert door.ask(bearer(OTHER) | {"x-fleet-model": "b"})[0] == 200


def test_a_rate_holds_and_says_when_to_come_again(door: Door, host: Any) -> None:
    door.put(host, [key("alice", KEY), key("slow", SLOW, rate_per_s=0.5, burst=2)])
    assert [door.ask(bearer(SLOW))[0] for _ in range(3)] == [200, 200, 429]
    assert door.reply.headers["retry-after"] == "2"
    assert door.ask(bearer(KEY))[0] == 200
    door.put(host, [key("slow", SLOW, rate_per_s=0.5, burst=2)])  # another list gives no second burst
    assert door.ask(bearer(SLOW))[0] == 429


def test_who_was_turned_away_is_counted_by_key(door: Door, host: Any) -> None:
    def counted() -> dict[str, float]:
        text = door.balancer.ask("GET", "/metrics")[1].decode()
        found = re.findall(r'^fleet_balancer_key_refusals_total{key="(\w*)"} (\S+)$', text, re.MULTILINE)
        return {name: float(count) for name, count in found}

    door.put(host, [key("hasty", "fleet-hasty", rate_per_s=0.01, burst=1)])
    before = counted()
    for headers in (bearer("fleet-hasty"), bearer("fleet-hasty"), bearer("fleet-guess"), {}):
        door.ask(headers)
    after = counted()
    assert after["hasty"] == 1
    assert after[""] - before.get("", 0) == 2


def test_a_revoked_key_is_refused_by_the_next_list(door: Door, host: Any) -> None:
    door.put(host, [key("alice", KEY)])
    assert door.ask(bearer(KEY))[0] == 200
    door.put(host, [])
    assert door.ask(bearer(KEY))[0] == 401


def test_who_came_too_often_is_named_in_the_log(balancer: Start, host: Any, tmp_path: Path) -> None:
    door = Door(balancer, tmp_path)
    door.put(host, [key("alice", KEY, rate_per_s=0.01, burst=1)])
    assert [door.ask(bearer(KEY))[0] for _ in range(2)] == [200, 429]
    door.client.close()
    late = door.logged(2)[1]
    assert (late["status"], late["key"], late["refused"]) == (429, "alice", "too_many_requests")


def test_where_no_keys_are_asked_for_hosts_get_what_the_client_sent(door: Door, host: Any) -> None:
    door.put(host, None)
    code, seen = door.ask(bearer("mine") | {"X-Api-Key": "too"})
    assert code == 200
    assert b"authorization: bearer mine\r\n" in seen.lower() and b"x-api-key: too\r\n" in seen.lower()


def test_the_log_names_the_key_and_never_shows_it(balancer: Start, host: Any, tmp_path: Path) -> None:
    door = Door(balancer, tmp_path)
    door.put(host, [key("alice", KEY)])
    door.ask(bearer(KEY) | {"x-request-id": "one"}, f"/x?key={KEY}")
    door.ask(bearer("fleet-guess") | {"x-request-id": "two"})
    door.ask(bearer(KEY) | {"x-request-id": "three"}, "/x", b"hello")
    good, refused, posted = door.logged(3)
    assert {k: good[k] for k in ("request_id", "client", "method", "target", "status", "bytes", "host", "pool")} == {
        "request_id": "one", "client": "127.0.0.1", "method": "GET", "target": "/x", "status": 200,
        "bytes": 13, "host": "default", "pool": "default",
    }  # fmt: skip
    assert (good["model"], good["key"], good["retries"], good["refused"]) == ("a", "alice", 0, None)
    assert abs(good["at"] - time.time()) < 30 and 0 < good["duration_ms"] < 10_000
    assert (refused["request_id"], refused["status"], refused["refused"], refused["key"], refused["host"]) == (
        "two", 401, "unauthorized", None, None,
    )  # fmt: skip
    assert refused["bytes"] > 50  # the body that says why
    assert (posted["method"], posted["status"], posted["bytes"]) == ("POST", 200, 13)
    assert "fleet-" not in door.log.read_text()
    # A client that leaves is written down too.
    door.client.request("GET", "/slow/5000", headers=bearer(KEY))
    while door.balancer.status()["pools"][0]["in_flight"] == 0:
        time.sleep(0.02)
    door.client.close()
    assert door.logged(4)[3]["status"] == 499


def test_keys_that_contradict_each_other_change_nothing(door: Door, host: Any) -> None:
    door.put(host, [key("alice", KEY)])
    twice = {"pools": [], "backends": [], "keys": [key("a", KEY), key("a", OTHER)]}
    code, body = door.balancer.ask("PUT", "/backends", twice)
    assert (code, b"listed twice" in body) == (400, True)
    assert door.ask(bearer(KEY))[0] == 200


def test_several_workers_share_a_rate_and_a_log(balancer: Start, host: Any, tmp_path: Path) -> None:
    door = Door(balancer, tmp_path, workers=2)
    door.put(host, [key("alice", KEY, rate_per_s=0.01, burst=7)])
    codes = []
    for _ in range(20):  # a new connection each: the kernel deals them out to the workers
        codes.append(door.ask(bearer(KEY))[0])
        door.client.close()
    assert codes.count(200) == 7 and set(codes) == {200, 429}
    assert sorted(line["status"] for line in door.logged(20)) == [200] * 7 + [429] * 13


def test_a_balancer_that_was_killed_comes_back_with_its_keys(
    balancer: Start, host: Any, tmp_path: Path
) -> None:
    door = Door(balancer, tmp_path, keys_required=True, state_file=str(tmp_path / "state.json"))
    door.put(host, [key("alice", KEY)])
    assert door.ask(bearer(KEY))[0] == 200
    door.client.close()
    door.balancer.process.kill()
    door.balancer.process.wait()
    door.restart()
    assert [door.ask({})[0], door.ask(bearer(OTHER))[0], door.ask(bearer(KEY))[0]] == [401, 401, 200]
    door.client.close()
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0


def test_a_balancer_alone_takes_its_keys_from_a_file(balancer: Start, host: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps([key("alice", KEY)]))
    alone = balancer("--backends", host.address, "--keys-file", str(file))
    client = http.client.HTTPConnection("127.0.0.1", alone.port, timeout=10)
    codes = []
    for headers in ({}, bearer(KEY)):
        client.request("GET", "/x", headers=headers)
        reply = client.getresponse()
        reply.read()
        codes.append(reply.status)
    client.close()
    assert codes == [401, 200]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "keys.json can't be read: No such file"),
        ("{}", "keys.json: the file: this should be a valid array"),
        (json.dumps([{"name": "a", "sha256": "short"}]), "keys.json: [0].sha256: this should match"),
        (json.dumps([key("a", KEY), key("a", OTHER)]), "keys.json: API key a is listed twice"),
    ],
)
def test_keys_that_can_not_be_read_stop_it_before_it_serves(
    tmp_path: Path, text: str | None, why: str
) -> None:
    file = tmp_path / "keys.json"
    if text is not None:
        file.write_text(text)
    ports = ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--backends", "127.0.0.1:9"]
    with pytest.raises(UsageError, match=re.escape(why)):
        read_options([*ports, "--keys-file", str(file)])
    with pytest.raises(UsageError, match="--keys-file is for --backends"):
        read_options([*ports[:-2], "--keys-file", str(file)])
