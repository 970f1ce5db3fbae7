"""The admin address and the command line: what is shown, who may change it, what bad input is told."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from fleet_wire.balancer import BackendList, BalancerStatus
from fleet_wire.histogram import LatencyHistogram


def run(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "fleet_balancer", *arguments],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    return done.returncode, done.stderr


def test_the_token_guards_all_but_healthz(balancer: Any) -> None:
    front = balancer(token="s3cret")
    front.token = None
    assert front.ask("GET", "/healthz") == (200, b"ok\n")
    for method, path in (("GET", "/status"), ("GET", "/metrics"), ("GET", "/backends"), ("PUT", "/backends")):
        assert front.ask(method, path)[0] == 401
        assert front.ask(method, path, token="s3creT")[0] == 401
    assert front.ask("GET", "/status", token="s3cret")[0] == 200


def test_tokens_of_hosts_are_never_shown(balancer: Any) -> None:
    front = balancer()
    front.put({"name": "a", "address": "127.0.0.1:1", "token": "hosts-own"})
    for path in ("/backends", "/status", "/metrics"):
        code, body = front.ask("GET", path)
        assert code == 200
        assert b"hosts-own" not in body
    shown = BackendList.model_validate_json(front.ask("GET", "/backends")[1])
    assert shown.backends[0].token is None


@pytest.mark.parametrize(
    ("document", "says"),
    [
        (
            {"pools": [{"name": "p"}], "backends": [{"name": "a", "address": "h:1"}]},
            "there is no pool default",
        ),
        ({"pools": [{"name": "p"}, {"name": "p"}], "backends": []}, "pool p is listed twice"),
        (
            {"pools": [{"name": "default"}], "backends": [{"name": "a", "address": "h"}]},
            "'h' is not HOST:PORT",
        ),
        (
            {"pools": [{"name": "default"}], "backends": [{"name": "a", "address": "h:99999"}]},
            "is not HOST:PORT",
        ),
        ({"pools": [{"name": "default"}], "backends": [{"name": "a", "address": "::1:80"}]}, "in brackets"),
        ({"pools": [{"name": "default", "routing": "magic"}], "backends": []}, "pools[0].routing"),
        ({"pools": [], "backends": [], "surprise": 1}, "surprise"),
        (
            {
                "pools": [{"name": "default"}],
                "backends": [{"name": "a", "address": "h:1", "token": "a\r\nb: c"}],
            },
            "control character",
        ),
        (
            {"pools": [{"name": "default"}], "backends": [{"name": "a", "address": "h:1"}] * 2},
            "backend a is listed twice",
        ),
        (
            {
                "pools": [{"name": "default"}],
                "backends": [{"name": name, "address": "h:1"} for name in ("a", "b")],
            },
            "backends a and b of pool default have the same address",
        ),
        ("not an object", "BackendList"),
    ],
)
def test_a_list_that_contradicts_itself_changes_nothing(shared: Any, document: Any, says: str) -> None:
    host, front = shared
    before = front.ask("GET", "/backends")
    code, body = front.ask("PUT", "/backends", document)
    assert code == 400
    assert says in json.loads(body)["error"]["message"]
    assert front.ask("GET", "/backends") == before
    assert front.backend(host.address)["healthy"]


def test_paths_and_methods_that_are_not_there(shared: Any) -> None:
    _, front = shared
    assert front.ask("GET", "/nix")[0] == 404
    assert front.ask("POST", "/status", {})[0] == 405
    assert front.ask("GET", "/backends/a/drain")[0] == 405
    assert front.ask("POST", "/backends/nix/drain", {})[0] == 404


async def test_metrics_and_status_tell_the_same(shared: Any, http: Any) -> None:
    host, front = shared
    client = await http.open(front.port)
    for i in range(5):
        await client.ask("GET", "/x")
        await client.ask("GET", f"/status/{500 if i == 0 else 404}")
    await client.close()
    status = BalancerStatus.model_validate(front.status())
    pool = status.pools[0]
    samples = {
        (s.name, *(v for k, v in sorted(s.labels.items()))): s.value
        for family in text_string_to_metric_families(front.ask("GET", "/metrics")[1].decode())
        for s in family.samples
    }
    assert samples["fleet_balancer_arrivals_total", "default"] == pool.arrivals == 10
    assert samples["fleet_balancer_requests_total", "completed", "default"] == pool.completed == 9
    assert samples["fleet_balancer_requests_total", "errors", "default"] == pool.errors == 1
    assert samples["fleet_balancer_latency_seconds_count", "default"] == 9
    assert samples["fleet_balancer_latency_seconds_bucket", "+Inf", "default"] == 9
    assert samples["fleet_balancer_host_requests_total", host.address, "default"] == 10
    assert LatencyHistogram.from_wire(pool.latency).count == 9


async def test_a_client_that_says_nothing_does_not_hold_the_admin_address(shared: Any) -> None:
    _, front = shared
    host, _, port = front.admin.rpartition(":")
    idle = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
    assert (await asyncio.to_thread(front.ask, "GET", "/healthz"))[0] == 200
    for _, writer in idle:
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"],
            "can be reached from other machines: give --token-file",
        ),
        (["--listen", "127.0.0.1", "--admin", "127.0.0.1:0"], "--listen: '127.0.0.1' is not HOST:PORT"),
        (
            ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--backends", "a"],
            "--backends: 'a' is not HOST:PORT",
        ),
        (["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--backends", "a:1,a:1"], "listed twice"),
        (
            ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "65"],
            "65 is not between 1 and 64",
        ),
        (
            ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--token-file", "/nix"],
            "--token-file: /nix can't be read: No such file or directory",
        ),
        (
            ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--ready-file", "/nix/ready.json"],
            "--ready-file: /nix/ready.json can't be written: there is no folder /nix",
        ),
        (
            ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--backends", "http://10.0.0.1:80"],
            "'http://10.0.0.1:80' is not HOST:PORT: leave out http://",
        ),
        (["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--workers", "x"], "'x' is no whole number"),
        (
            ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--grace", "1m"],
            "'1m' is no number of seconds",
        ),
        (
            ["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--routing", "magic"],
            "invalid choice: 'magic'",
        ),
        (["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--queue-size", "-1"], "--queue-size"),
        (
            ["--listen", "203.0.113.1:1", "--admin", "127.0.0.1:0"],
            "--listen: cannot listen on 203.0.113.1:1: Cannot assign requested address: it is no address of this",
        ),
    ],
)
def test_bad_arguments_end_it_with_2_and_one_clear_line(arguments: list[str], says: str) -> None:
    code, said = run(*arguments)
    assert code == 2
    assert says in said
    assert "Traceback" not in said


def test_a_port_that_is_taken_is_an_error_that_names_it(shared: Any) -> None:
    _, front = shared
    code, said = run("--listen", front.listen, "--admin", "127.0.0.1:0")
    assert code == 2
    assert (
        f"--listen: cannot listen on {front.listen}: Address already in use; `ss -ltnp` says by whom" in said
    )
    code, said = run("--listen", "127.0.0.1:0", "--admin", front.listen)
    assert code == 2 and f"--admin: cannot listen on {front.listen}" in said


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "pools: this field is needed; backends: this field is needed; nothing was changed"),
        (
            {
                "pools": [{"name": "p"}],
                "backends": [{"name": "a", "address": "h:1", "wight": 2, "weight": 0}],
            },
            "backends[0].weight: this should be greater than 0; backends[0].wight: there is no such field",
        ),
        (
            {"pools": [{"name": "p", "x": 1}] * 7, "backends": []},
            "pools[4].x: there is no such field; and 2 more",
        ),
    ],
)
def test_every_mistake_in_a_list_is_told_with_its_place(shared: Any, document: object, says: str) -> None:
    _, front = shared
    status, reply = front.ask("PUT", "/backends", document)
    assert status == 400
    assert says in json.loads(reply)["error"]["message"]


def test_a_host_that_does_not_come_up_is_a_line_in_the_log(
    balancer: Any, wait_until: Any, capfd: Any
) -> None:
    balancer("--backends", "127.0.0.1:1")
    said = ""

    def told() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "host 127.0.0.1:1 (127.0.0.1:1) is not in yet: /readyz: Connection refused" in said

    wait_until(told)


def test_the_first_line_says_where_it_listens(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fleet_balancer", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    assert process.stdout.readline().startswith("listening on http://127.0.0.1:")
    assert process.stdout.readline().startswith("admin on http://127.0.0.1:")
    process.send_signal(signal.SIGTERM)
    assert process.wait(5) == 0
    process.stdout.close()
