"""Loading, swapping, keeping and unloading versions in one running agent, and what it says about them."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

MIB = 2**20
COMMAND = {"argv": ["sleep", "9"]}

TRITON = """
import json
import sys
import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient(sys.argv[1].removeprefix("http://"))

def ask(version=""):
    tensor = triton.InferInput("x", [1, 1], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 1), np.float32))
    return float(client.infer("m", [tensor], model_version=version).as_numpy("y")[0][0])

def index():
    return {(e["name"], e["version"]): e["state"] for e in client.get_model_repository_index()}

assert {"model_repository", "binary_tensor_data"} <= set(client.get_server_metadata()["extensions"])
assert index()[("m", "1")] == index()[("other", "1")] == "READY"
client.unload_model("m")
assert not client.is_model_ready("m") and index()[("m", "1")] == "UNAVAILABLE"
client.load_model("m")
assert client.is_model_ready("m") and client.is_model_ready("m", "1") and ask() == ask("1") == 1.0
client.load_model("m", config=json.dumps({"version": "2", "options": {"number": 2}}))
assert client.get_model_metadata("m")["versions"] == ["2"] and not client.is_model_ready("m", "1")
assert client.get_model_metadata("m", "2")["inputs"][0]["name"] == "x" and ask() == ask("2") == 2.0
for name, config, status, words in (
    ("m", '{"versoin": "3"}', "400", "versoin"),
    ("m", '{"name": "n"}', "400", "names the model 'n'"),
    ("none", None, "404", "m, other"),
):
    try:
        client.load_model(name, config=config)
        raise SystemExit(f"{config} was taken")
    except triton.InferenceServerException as error:
        assert error.status() == status and words in error.message()["message"], error.message()
client.load_model("m", config=json.dumps({"version": "1", "options": {"number": 1}}))
"""


@pytest.fixture(scope="module")
def agent(start_shared_agent, numbered):
    """Version 1 of m, of which each declares 400 of 1000 MiB, and another model."""
    return start_shared_agent(
        numbered("1", device_memory_bytes_=400 * MIB),
        numbered("1", name="other", device_memory_bytes_=0),
        device_memory_total_bytes=1000 * MIB,
    ).ready()


@pytest.fixture(autouse=True)
def with_version_1(agent, numbered, change):
    """Every test begins with version 1 alone."""
    reply = change(agent, load=numbered("1", device_memory_bytes_=400 * MIB), old="unload-first")
    assert reply.status_code == 200, reply.text
    for version in {entry["version"] for entry in reply.json()["models"]} - {"1"}:
        change(agent, unload={"name": "m", "version": version})


def number(agent, path="/v1/models/m:predict"):
    reply = agent.http.post(path, json={"instances": [[0.0]]})
    return (reply.headers.get("x-fleet-model-version"), reply.json()["predictions"][0][0])


def error_of(reply: httpx.Response) -> tuple[int, str]:
    return reply.status_code, reply.json()["error"]["message"]


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"load": "raises"}, "no such weights"),
        ({"load": "exits"}, "SystemExit"),
        ({"number": -1}, "warm-up failed: RuntimeError: cold"),
        ({"path_": "/nowhere"}, "there is no folder /nowhere"),
        ({"weights_": [{"file": "model.py", "sha256": "0" * 64}]}, "is pinned"),
    ],
)
def test_a_load_that_fails_leaves_the_old_version_and_says_why(agent, numbered, change, states, wrong, says):
    status, message = error_of(change(agent, load=numbered("2", device_memory_bytes_=0, **wrong)))
    assert status == 400
    assert says in message
    assert message.endswith("version 1 answers as before")
    assert number(agent) == ("1", 1.0)
    assert states(agent) == {"1": "ready", "2": "failed"}
    assert agent.http.get("/readyz").status_code == 200
    assert agent.status()["state"] == "ready"


def test_a_name_that_was_never_loaded_says_why(agent, numbered, change):
    status, message = error_of(
        change(agent, load=numbered("1", name="new", load="raises", device_memory_bytes_=0))
    )
    assert (status, "no such weights" in message) == (400, True)
    status, message = error_of(agent.predict("new", [[0.0]]))
    assert (status, "no such weights" in message) == (404, True)
    assert change(agent, unload={"name": "new"}).status_code == 404


def test_what_does_not_fit_beside_the_old_one_is_refused_before_anything_is_touched(
    agent, numbered, change, states
):
    bigger = numbered("2", device_memory_bytes_=700 * MIB)
    status, message = error_of(change(agent, load=bigger))
    assert status == 409
    assert "version 2 needs 700.0 MiB of device memory, and 600.0 MiB of 1000.0 MiB are free" in message
    assert "unload-first" in message
    assert states(agent) == {"1": "ready"}
    reply = change(agent, load=bigger, old="unload-first")
    assert reply.json()["result"] == "switched"
    assert number(agent) == ("2", 2.0)
    status, message = error_of(
        change(agent, load=numbered("3", device_memory_bytes_=1001 * MIB), old="unload-first")
    )
    assert (status, "700.0 MiB more once the old one is unloaded" in message) == (409, True)
    assert number(agent) == ("2", 2.0)


def test_an_old_version_that_made_room_comes_back_if_the_new_one_fails(agent, numbered, change):
    wrong = numbered("2", device_memory_bytes_=700 * MIB, load="raises")
    status, message = error_of(change(agent, load=wrong, old="unload-first"))
    assert (status, "version 1 is being loaded again" in message) == (400, True)
    agent.until(lambda: agent.predict("m", [[0.0]]).status_code == 200, "back with version 1")
    assert number(agent) == ("1", 1.0)


def test_both_versions_answer_by_number_while_the_old_one_is_kept(agent, numbered, change, states):
    two = numbered("2", device_memory_bytes_=400 * MIB)
    assert change(agent, load=two, old="keep").json()["result"] == "switched"
    assert states(agent) == {"1": "ready", "2": "ready"}
    assert number(agent) == ("2", 2.0)
    assert number(agent, "/v1/models/m/versions/1:predict") == ("1", 1.0)
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 1], "data": [0]}
    reply = agent.http.post("/v2/models/m/versions/1/infer", json={"inputs": [tensor]}).json()
    assert (reply["model_version"], reply["outputs"][0]["data"]) == ("1", [1.0])
    assert agent.http.get("/v2/models/m").json()["versions"] == ["2", "1"]
    assert agent.http.get("/v2/models/m/versions/1/ready").status_code == 200
    status = agent.status()
    assert [m["version"] for m in status["models"] if m["name"] == "m"] == ["2"]
    assert [(m["version"], m["state"]) for m in status["beside"]] == [("1", "ready")]
    assert status["device_memory"]["used_bytes"] == 800 * MIB
    # Back to a version that is there takes no load.
    assert (
        change(agent, load=numbered("1", device_memory_bytes_=400 * MIB), old="keep").json()["result"]
        == "switched"
    )
    assert number(agent) == ("1", 1.0)
    assert change(agent, unload={"name": "m", "version": "2"}).json()["result"] == "unloaded"
    status, message = error_of(agent.http.post("/v1/models/m/versions/2:predict", json={"instances": [[0]]}))
    assert (status, message) == (404, "model m has version 1 here, not 2")


def test_the_same_load_twice_is_one_and_another_is_refused_meanwhile(agent, numbered, change, states):
    two = numbered("2", device_memory_bytes_=0, load_s=0.7)
    replies: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda: replies.append(change(agent, load=two))) for _ in range(2)]
    for thread in threads:
        thread.start()
    agent.until(lambda: states(agent).get("2") == "loading", "loading version 2")
    status, message = error_of(change(agent, load=numbered("3", device_memory_bytes_=0)))
    assert (status, "model m: version 2 is being loaded; send this again" in message) == (409, True)
    assert error_of(change(agent, unload={"name": "m"}))[0] == 409
    status, message = error_of(agent.http.post("/v1/models/m/versions/2:predict", json={"instances": [[0]]}))
    assert (status, message) == (503, "model m: version 2 is being loaded")
    assert number(agent) == ("1", 1.0)
    for thread in threads:
        thread.join()
    assert [reply.json()["result"] for reply in replies] == ["switched", "switched"]
    loads = agent.log().count("version 2")
    assert change(agent, load=two).json()["result"] == "unchanged"
    assert agent.log().count("version 2") == loads


def test_a_folder_is_read_again_when_asked(agent, written_model, change):
    model = written_model(
        "edited", "class Model:\n    def load(self, *_): pass\n    def forward(self, x): return x + 1\n"
    )
    assert change(agent, load={**model, "device_memory_bytes": 0}).json()["result"] == "loaded"
    file = Path(model["path"]) / "model.py"
    file.write_text(file.read_text().replace("x + 1", "x + 20000"))
    assert change(agent, load={**model, "device_memory_bytes": 0}).json()["result"] == "unchanged"
    assert agent.predict("edited", [[1.0]]).json() == {"predictions": [[2.0]]}
    again = change(agent, load={**model, "device_memory_bytes": 0}, again=True)
    assert again.json()["result"] == "switched"
    assert agent.predict("edited", [[1.0]]).json() == {"predictions": [[20001.0]]}
    assert change(agent, unload={"name": "edited"}).json()["result"] == "unloaded"


def test_an_unloaded_model_finishes_its_requests_and_gives_its_memory_back(agent, numbered, change, states):
    heavy = numbered("5", device_memory_bytes_=0, mebibytes=200, pause_ms=700)
    assert change(agent, load=heavy).json()["result"] == "switched"
    held = resident(agent.worker())
    replies: list[httpx.Response] = []
    last = threading.Thread(target=lambda: replies.append(agent.predict("m", [[0.0]])))
    last.start()
    agent.until(lambda: agent.status()["in_flight"] == 1, "computing")
    unloaded: list[httpx.Response] = []
    unload = threading.Thread(target=lambda: unloaded.append(change(agent, unload={"name": "m"})))
    unload.start()
    agent.until(lambda: states(agent).get("5") == "unloading", "unloading")
    assert agent.predict("m", [[0.0]]).status_code == 404
    last.join()
    unload.join()
    assert [reply.status_code for reply in replies] == [200]
    assert unloaded[0].json()["result"] == "unloaded"
    assert unloaded[0].json()["models"] == [
        {
            "name": "m", "version": "5", "state": "unloaded", "answers": False, "reason": None, "queued": 0,
            "in_flight": 0, "device_memory_bytes": None,
        }
    ]  # fmt: skip
    assert held - resident(agent.worker()) > 180 * MIB
    assert change(agent, unload={"name": "m"}).json()["result"] == "unchanged"


def test_counters_go_on_over_swaps_and_every_version_has_its_own(agent, numbered, change):
    seen = [agent.status()["completed"]]
    for version in ("2", "3", "2"):
        assert change(agent, load=numbered(version, device_memory_bytes_=0)).status_code == 200
        assert number(agent)[0] == version
        seen.append(agent.status()["completed"])
        time.sleep(0.05)
    assert seen == [seen[0], seen[0] + 1, seen[0] + 2, seen[0] + 3]
    lines = agent.http.get("/metrics").text.splitlines()
    mine = [line for line in lines if line.startswith('fleet_agent_requests_total{model="m"')]
    done = {line.split('version="')[1][0]: float(line.split()[-1]) for line in mine if "completed" in line}
    assert done["2"] >= 2 and done["3"] >= 1
    assert sum(done.values()) <= seen[-1]
    keys = [line.rpartition(" ")[0] for line in lines if not line.startswith("#")]
    assert len(keys) == len(set(keys))


def test_the_stock_triton_client_loads_and_unloads(agent):
    ran = subprocess.run(
        [sys.executable, "-c", TRITON, agent.url], capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({}, 'give "load" (a model configuration) or "unload" (a name)'),
        ({"unload": {"name": "none"}}, "there is no model 'none' here"),
        ({"unload": {"name": "m", "version": "9"}}, "there is no model 'm' version 9; it has 1"),
        ({"unload": {"name": "m"}, "again": True}, '"old" and "again" belong to "load"'),
        ({"load": {"name": "m"}}, "load.path: Field required"),
        ({"load": {"name": "m", "path": "/", "version": "1\r\nx: y"}}, "version '1\\r\\nx: y'"),
        ({"load": {"name": "m", "path": "/", "runtime": "command", "command": COMMAND}}, "outside engine"),
        ({"laod": {}}, "laod: Extra inputs are not permitted"),
    ],
)
def test_a_change_that_makes_no_sense_is_refused_in_words(agent, change, body, says):
    status, message = error_of(change(agent, **body))
    assert 400 <= status < 410
    assert says in message


def test_clients_of_a_balancer_change_nothing(agent, start_balancer):
    url = start_balancer(agent.url.removeprefix("http://"))
    for path in ("/admin/models", "/admin/drain", "/v2/repository/models/m/unload"):
        reply = httpx.post(url + path, json={"unload": {"name": "m"}}, timeout=30)
        assert error_of(reply)[0] == 403, path
        assert "ask this server itself" in error_of(reply)[1]
    assert httpx.post(f"{url}/v1/models/m:predict", json={"instances": [[0]]}, timeout=30).status_code == 200
    assert number(agent) == ("1", 1.0)


def resident(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096
