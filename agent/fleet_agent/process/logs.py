"""The agent's log: one JSON object a line on stderr."""

from __future__ import annotations

import json
import logging
import sys


class _Line(logging.Formatter):
    """One JSON object a line, so that the logs of many hosts can be read together."""

    def __init__(self, host: str) -> None:
        super().__init__()
        self._host = host

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "at": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}",
            "level": record.levelname.lower(),
            "host": self._host,
            "from": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def log_to_stderr(host: str) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Line(host))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
