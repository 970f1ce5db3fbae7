"""SkyServe's own load balancer as its controller starts it: `peer_skyserve.py PORT ORIGIN_PORT...`.

It asks a controller for the replicas, 5 s after its start; a thread here answers for one.
"""

from __future__ import annotations

import json
import logging
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from sky.serve.load_balancer import run_load_balancer


def main() -> None:
    port, *origins = map(int, sys.argv[1:])
    answer = json.dumps({"replica_info": {f"http://127.0.0.1:{o}": {} for o in origins}}).encode()

    class Controller(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    controller = ThreadingHTTPServer(("127.0.0.1", 0), Controller)
    threading.Thread(target=controller.serve_forever, daemon=True).start()
    # What it prints of each request goes nowhere here, which flatters it.
    logging.disable(logging.CRITICAL)
    run_load_balancer(f"http://127.0.0.1:{controller.server_address[1]}", port)


if __name__ == "__main__":
    main()
