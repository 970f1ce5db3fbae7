"""kill -9: what the operator and the hosts did before is known again, and serving goes on at once."""

from __future__ import annotations

import asyncio
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest


async def test_a_killed_balancer_is_back_with_hosts_drains_weights_and_ejections(
    origin: Any, balancer: Any, http: Any, tmp_path: Path, wait_until: Any
) -> None:
    state = tmp_path / "state.json"
    hosts = [origin("a"), origin("b"), origin("c")]
    front = balancer("--state-file", str(state))
    front.put(*hosts, ejection={"consecutive_5xx": 3, "base_s": 60, "latency_factor": None})
    await asyncio.to_thread(wait_until, lambda: all(b["healthy"] for b in front.status()["backends"]))
    assert front.ask("POST", "/backends/a/drain")[0] == 200
    assert front.ask("POST", "/backends/b/weight", {"weight": 2})[0] == 200
    client = await http.open(front.port)
    while front.backend("c")["ejected_s"] is None:
        reply = await client.ask("GET", "/status/500")
        assert reply.status == 500
        if front.backend("b")["ejected_s"] is not None:
            break
    ejected = next(b["name"] for b in front.status()["backends"] if b["ejected_s"] is not None)
    await client.close()
    await asyncio.to_thread(wait_until, lambda: "open" in state.read_text(encoding="utf-8"))
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    front.process.kill()
    front.process.wait()

    begun = time.monotonic()
    again = balancer("--state-file", str(state))
    client = await http.open(again.port)
    reply = await client.ask("GET", "/x")
    took_s = time.monotonic() - begun
    assert reply.status == 200
    assert took_s < 3.0, "about 0.6 s on a quiet machine"
    told = {b["name"]: b for b in again.status()["backends"]}
    assert told["a"]["state"] == "draining"
    assert told[ejected]["ejected_s"] > 30
    serving = ({"b", "c"} - {ejected}).pop()
    for _ in range(6):
        assert (await client.ask("GET", "/x")).body == b'{"host": "%b"}' % serving.encode()
    await client.close()


@pytest.mark.parametrize("content", ["", "{", '{"schema": "fleetctl/balancer-state/v2"}', "[]"])
def test_a_state_file_that_makes_no_sense_is_ignored_with_one_line(tmp_path: Path, content: str) -> None:
    state = tmp_path / "state.json"
    state.write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "fleet_balancer", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--state-file", str(state)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout and process.stdout.readline().startswith("listening on")
    process.terminate()
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0
    assert said.count("is ignored") == 1 and str(state) in said
    assert "Traceback" not in said


def test_a_state_file_that_cannot_be_written_stops_nothing(balancer: Any, tmp_path: Path) -> None:
    front = balancer("--state-file", str(tmp_path / "nowhere" / "state.json"))
    front.put({"name": "a", "address": "127.0.0.1:1"})
    assert front.backend("a")["name"] == "a"


def test_an_operators_drain_and_weight_stand_over_the_next_list(balancer: Any) -> None:
    front = balancer()
    hosts = [{"name": n, "address": f"127.0.0.1:{i}"} for i, n in enumerate("ab", 1)]
    front.put(*hosts)
    assert front.ask("POST", "/backends/a/drain")[0] == 200
    assert front.ask("POST", "/backends/b/weight", {"weight": 2.5})[0] == 200
    for bad in ({"weight": 0}, {"weight": "x"}, {}, {"weight": 1, "more": 1}):
        assert front.ask("POST", "/backends/b/weight", bad)[0] == 400
    front.put(*hosts)
    assert front.backend("a")["state"] == "draining"
    assert b'"weight":2.5' in front.ask("GET", "/backends")[1]
    assert front.ask("POST", "/backends/a/undrain")[0] == 200
    assert front.ask("POST", "/backends/b/weight", {"weight": None})[0] == 200
    front.put(*hosts)
    assert front.backend("a")["state"] == "active"
    assert b'"weight":2.5' not in front.ask("GET", "/backends")[1]
    # A list without the host ends what was said of it.
    assert front.ask("POST", "/backends/a/drain")[0] == 200
    front.put(hosts[1])
    front.put(*hosts)
    assert front.backend("a")["state"] == "active"


async def test_ten_swaps_under_load_drop_no_request(
    origin: Any, balancer: Any, load: Any, wait_until: Any
) -> None:
    hosts = [origin(name) for name in "abc"]
    front = balancer()
    front.put(*hosts)
    await asyncio.to_thread(wait_until, lambda: all(b["healthy"] for b in front.status()["backends"]))
    async with load(front.port, "/slow/5", 16, 0.01) as tally:
        for i in range(10):
            await asyncio.to_thread(front.put, *(h for h in hosts if h.name != "abc"[i % 3]))
            await asyncio.sleep(0.1)
    assert tally.failed == 0
    assert len(tally.replies) > 200
