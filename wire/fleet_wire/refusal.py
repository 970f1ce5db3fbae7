"""How a request is refused: one JSON shape, on the agent and at the balancer alike."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

# code -> HTTP status. 503 and 429 say when to come back.
STATUS = {
    "bad_request": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "conflict": 409,
    "too_large": 413,
    "uri_too_long": 414,
    "headers_too_large": 431,
    "internal": 500,
    "not_implemented": 501,
    "bad_gateway": 502,
    "overloaded": 429,
    "too_many_requests": 429,
    "unavailable": 503,
    "deadline_exceeded": 504,
    "version_not_supported": 505,
}


@dataclass(eq=False)
class Refusal(Exception):
    """A request that is not served. `code` is a key of STATUS; `retry_after_s` is seconds."""

    code: str
    message: str
    retry_after_s: float | None = None

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def status(self) -> int:
        return STATUS[self.code]

    def body(self) -> bytes:
        """{"error": {"code", "message", "retry_after_s"}} as UTF-8."""
        error = {"code": self.code, "message": self.message, "retry_after_s": self.retry_after_s}
        return json.dumps({"error": error}, separators=(",", ":")).encode()

    def headers(self) -> list[tuple[str, str]]:
        """Content-Type; for 401 the challenge that goes with it (RFC 9110 11.6.1, RFC 6750 3); for 429 and 503
        Retry-After in whole seconds (RFC 9110 10.2.3), at least 1."""
        headers = [("content-type", "application/json")]
        if self.status == 401:
            headers.append(("www-authenticate", "Bearer"))
        if self.status in (429, 503):
            headers.append(("retry-after", str(max(1, math.ceil(self.retry_after_s or 1)))))
        return headers
