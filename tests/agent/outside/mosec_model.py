"""A model for Mosec, a real inference server from PyPI: it doubles numbers, and streams words."""

from __future__ import annotations

import time
from typing import Any

from mosec import Runtime, Server, SSEWorker, Worker


class Double(Worker):
    def forward(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"doubled": [2 * number for number in data["numbers"]]}


class Words(SSEWorker):
    def forward(self, data: dict[str, Any]) -> str:
        for word in data["words"]:
            self.send_stream_event(word)
            time.sleep(data["pause_s"])
        return ""


if __name__ == "__main__":
    server = Server()
    server.register_runtime({"/v1/double": [Runtime(Double, num=1)], "/v1/words": [Runtime(Words, num=1)]})
    server.run()
