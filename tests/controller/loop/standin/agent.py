"""Stands in for an agent where the controller is what is tested: a real process that starts in 0.1 s, without torch.

It is started by the real host code in place of `python -m fleet_agent`. `<folder>/<host>.json` says how it behaves:
{"exit": "last words"}, {"load_s": 2}, {"state": "failed", "error": "why"}, {"memory": [used, total]},
{"mute": true}: it serves, but does not say how it is.
`<folder>/starts` gets a line for each start, and one with DOUBLE where two agents of one host met.
"""

import fcntl
import json
import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder = Path(sys.argv[1])
config = json.loads(Path(sys.argv[sys.argv.index("--config") + 1]).read_text())
host = config["host"]
began = time.time()


def behaviour():
    try:
        return json.loads((folder / f"{host}.json").read_text())
    except OSError:
        return {}


def note(text):
    with (folder / "starts").open("a") as file:
        file.write(text + "\n")


def state():
    how = behaviour()
    if "state" in how:
        return how["state"]
    return "loading" if time.time() < began + how.get("load_s", 0) else "ready"


class Face(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def answer(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/readyz":
            self.answer(200 if state() == "ready" else 503, {"state": state()})
        elif self.headers.get("authorization") != "Bearer " + Path(config["token_file"]).read_text().strip():
            self.answer(401, {})
        elif behaviour().get("mute"):
            self.answer(500, {})
        else:
            used, total = behaviour().get("memory", (None, None))
            models = [{"name": m["name"], "version": m["version"], "ready": True} for m in config["models"]]
            self.answer(
                200,
                {
                    "schema": "fleetctl/agent-status/v1",
                    "fleet": config["fleet"],
                    "host": host,
                    "action_id": config["action_id"],
                    "release": config["release"],
                    "pid": os.getpid(),
                    "started_at": began,
                    "at": time.time(),
                    "state": state(),
                    "error": behaviour().get("error"),
                    "models": models,
                    "in_flight": 0,
                    "queued": 0,
                    "completed": 0,
                    "errors": 0,
                    "busy_s": 0.0,
                    "latency": {"gamma": 1.02, "count": 0, "sum_ms": 0.0, "buckets": {}},
                    "device": "cpu",
                    "device_memory": {"used_bytes": used, "total_bytes": total},
                },
            )

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        time.sleep(behaviour().get("think_s", 0))
        self.answer(200, {"predictions": [host]})


if "exit" in behaviour():
    note(f"start {host} {config['action_id']}")
    sys.stderr.write(behaviour()["exit"] + "\n")
    sys.exit(1)
lock = (folder / f"{host}.lock").open("w")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    note(f"DOUBLE {host} {config['action_id']}")
note(f"start {host} {config['action_id']}")
address, _, port = config["listen"].rpartition(":")
server = ThreadingHTTPServer((address, int(port)), Face)
server.daemon_threads = True
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
run = {
    "pid": os.getpid(),
    "start_ticks": ticks,
    "boot_id": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
    "port": server.server_address[1],
    "action_id": config["action_id"],
    "release": config["release"],
}
fresh = Path(config["run_file"] + ".new")
fresh.write_text(json.dumps(run))
fresh.replace(config["run_file"])
server.serve_forever()
