"""FrontDoor: the controller's side of the balancer's admin listener."""

from __future__ import annotations

from collections.abc import Callable

import urllib3
from pydantic import ValidationError

from fleet_controller import failpoint
from fleet_wire.balancer import BackendList, BalancerStatus

TIMEOUT = urllib3.Timeout(connect=1.0, read=3.0)


class FrontDoorError(Exception):
    """The balancer did not answer, or not as a balancer does."""


class FrontDoor:
    """One balancer's admin API. `address` says where it listens now ("HOST:PORT"): a restart may move it."""

    def __init__(self, address: Callable[[], str], token: str) -> None:
        self._address = address
        self._headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        self._http = urllib3.PoolManager(maxsize=4, retries=False)

    def status(self) -> BalancerStatus:
        """Raises FrontDoorError."""
        try:
            return BalancerStatus.model_validate_json(self._call("GET", "/status"))
        except ValidationError as error:
            raise FrontDoorError(f"the balancer at {self.address} answers nonsense: {error}") from error

    def metrics(self) -> str:
        """What Prometheus would read. Raises FrontDoorError."""
        return self._call("GET", "/metrics").decode("utf-8", "replace")

    @failpoint.around("door.put")
    def put(self, backends: BackendList) -> None:
        """Swap the backends in; requests in flight are not touched. Raises FrontDoorError."""
        self._call("PUT", "/backends", backends.model_dump_json().encode())

    @property
    def address(self) -> str:
        return self._address()

    def _call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        try:
            answer = self._http.request(
                method,
                f"http://{self.address}{path}",
                body=body,
                headers=self._headers,
                timeout=TIMEOUT,
                redirect=False,
            )
        except urllib3.exceptions.HTTPError as error:
            raise FrontDoorError(
                f"the balancer at {self.address} does not answer: {spoken(error)}"
            ) from error
        if answer.status >= 300:
            raise FrontDoorError(f"the balancer at {self.address} answers {answer.status} to {method} {path}")
        return answer.data


def spoken(error: Exception) -> str:
    """A urllib3 error without its object address; a time-out carries the connection itself, and its words last."""
    words = [word for word in error.args if isinstance(word, str)]
    return (words[-1] if words else str(error)).rpartition("): ")[2] or type(error).__name__
