"""A real HTTP server that behaves, and misbehaves, as inference servers do. Standard library only.

What the command line says is how it lives; what a request's body says is how that one is answered:
{"model": ..., "stream": true, "pieces": 3, "pause_s": 0.1, "sleep_s": 1, "die": true, "status": 500}
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class State:
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments
        self.running = 0
        self.broken_pipes = 0
        self.hung = threading.Event()
        self.unwell = False
        self.lock = threading.Lock()
        self.connections = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(6, 1, 1)  # TCP_NODELAY
        with self.state.lock:
            self.state.connections += 1

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        state = self.state
        if self.path == "/health":
            if state.arguments.silent or state.hung.is_set():
                time.sleep(3600)
            young = time.monotonic() - state.arguments.began < state.arguments.load_s
            if state.unwell or young:
                self.reply(503, {"error": "loading"})
            else:
                self.reply(200, {"status": "ok"})
        elif self.path == "/metrics":
            text = (
                "# HELP engine:waiting Requests that wait.\n# TYPE engine:waiting gauge\n"
                f'engine:waiting{{engine="0"}} {max(0, state.running - 2)}.0\n'
                f'engine:running{{engine="0"}} {min(2, state.running)}.0\n'
                'engine:running_total{engine="0"} 77.0\n'
                'engine:cache_perc{engine="0"} 0.25\nengine:cache_perc{engine="1"} 0.75\n'
            )
            self.send(200, "text/plain", text.encode())
        elif self.path == "/v1/odd":
            self.send_response(200)
            self.send_header("Connection", "keep-alive, x-internal")
            self.send_header("X-Internal", "not for you")
            self.send_header("X-Kept", "kept")
            self.send_header("Set-Cookie", "a=1")
            self.send_header("Set-Cookie", "b=2")
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"ok")
        else:
            about = {"path": self.path, "headers": dict(self.headers), "connections": state.connections}
            self.reply(
                200, about | {"abandoned": state.broken_pipes, "running": state.running, "pid": os.getpid()}
            )

    def do_POST(self) -> None:
        state = self.state
        body = self.body()
        try:
            asked = json.loads(body)
        except ValueError:
            self.reply(200, {"bytes": len(body), "path": self.path, "headers": dict(self.headers)})
            return
        with state.lock:
            state.running += 1
        try:
            self.answer(asked)
        except (BrokenPipeError, ConnectionResetError):
            state.broken_pipes += 1
            self.close_connection = True
        finally:
            with state.lock:
                state.running -= 1

    def answer(self, asked: dict[str, Any]) -> None:
        if asked.get("hang"):
            self.state.hung.set()
            time.sleep(3600)
        if asked.get("unwell"):
            self.state.unwell = True
        if asked.get("stop"):
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(60)  # another thread may take the signal, and this one run on for a moment
        time.sleep(asked.get("sleep_s", 0))
        if asked.get("die"):
            os.kill(os.getpid(), signal.SIGKILL)
        if not asked.get("stream"):
            self.reply(
                asked.get("status", 200), {"asked": asked, "path": self.path, "headers": dict(self.headers)}
            )
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(asked.get("pieces", 3)):
            event = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": asked["model"]}
            event["choices"] = [{"index": 0, "delta": {"content": f"word{number} "}, "finish_reason": None}]
            self.chunk(b"data: " + json.dumps(event).encode() + b"\n\n")
            if number == asked.get("die_at"):
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(asked.get("pause_s", 0))
        self.chunk(b"data: [DONE]\n\n")
        self.chunk(b"")

    def chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            pieces = b""
            while size := int(self.rfile.readline(), 16):
                pieces += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return pieces
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def reply(self, status: int, value: object) -> None:
        self.send(status, "application/json", json.dumps(value).encode())

    def send(self, status: int, kind: str, data: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def say(text: str, to: int = 1) -> None:
    os.write(to, f"{text}\n".encode())


def twice_forked() -> None:
    """A child that leaves its session and its parent, and does not hear SIGTERM, as careless daemons do."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)
        os._exit(0)
    os.wait()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--load-s", type=float, default=0.0)
    parser.add_argument("--exit", type=int)
    parser.add_argument("--once", type=Path, help="--exit only while this file is not there; it is then made")
    parser.add_argument("--silent", action="store_true")
    parser.add_argument("--ignore-term", action="store_true")
    parser.add_argument("--double-fork", action="store_true")
    parser.add_argument("--flood", action="store_true")
    arguments = parser.parse_args()
    arguments.began = time.monotonic()
    say(f"serving {os.environ.get('GREETING', 'nobody')} on {arguments.port}")
    if arguments.exit is not None and not (arguments.once and arguments.once.exists()):
        if arguments.once:
            arguments.once.touch()
        say("CUDA out of memory, or the like", 2)
        sys.exit(arguments.exit)
    if arguments.ignore_term:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if arguments.double_fork:
        twice_forked()
    if arguments.flood:
        threading.Thread(target=lambda: [say("x" * 5000) for _ in range(20_000)], daemon=True).start()
    state = State(arguments)
    server = ThreadingHTTPServer(("127.0.0.1", arguments.port), type("Of", (Handler,), {"state": state}))
    server.daemon_threads = True
    server.serve_forever()


if __name__ == "__main__":
    main()
