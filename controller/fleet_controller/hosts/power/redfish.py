"""driver: redfish. A BMC over HTTPS, by sushy (extra "power").

sushy by itself sends a request again that got no answer, an order to switch too: here each goes out once
(`server_side_retries=1`), and none after its time.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

import sushy
from sushy.auth import BasicAuth
from sushy.connector import Connector
from sushy.exceptions import AccessError, SushyError

from fleet_controller.hosts.bounded import bounded
from fleet_controller.hosts.failure import HostFailure, brief
from fleet_controller.hosts.power.secret import password
from fleet_controller.hosts.power.state import Level
from fleet_controller.spec import HostSpec

T = TypeVar("T")

_LEVELS = {"On": Level.ON, "Off": Level.OFF, "PoweringOn": Level.RISING, "PoweringOff": Level.FALLING}
# What switches it on, off gracefully and off hard, the first that the BMC has (DMTF DSP0268, ResetType).
_ON = ("On", "ForceOn")
_SOFT = ("GracefulShutdown",)
_HARD = ("ForceOff",)


class Late(Exception):
    """A request that would have gone out after its time."""


class OnceConnector(Connector):  # type: ignore[misc]  # sushy has no types
    """Sends nothing after `until`, so that nothing is switched once somebody was told that it was not."""

    until = float("inf")

    def _op(self, method: str, *args: Any, **kwargs: Any) -> Any:
        if time.monotonic() > self.until:
            raise Late
        return super()._op(method, *args, **kwargs)

    def check_retry_on_exception(self, exception_msg: object) -> bool:
        """An order that some BMCs refuse because they are busy is not given again either."""
        return False


class Redfish:
    blind = False

    def __init__(self, host: HostSpec) -> None:
        self._host = host
        self._power = host.power
        self.who = f"its BMC {host.power.bmc}"

    def read(self) -> Level:
        def ask(system: Any) -> str | None:
            state = system.power_state
            return None if state is None else str(state.value)

        state = self._call("asking for the power state", ask, self._power.call_timeout)
        level = _LEVELS.get(state or "")
        if level is None:
            cause = (
                f"whether it is on is unknown: {self.who} says that its power state is {state or 'not known'}"
            )
            raise self._failure(
                "power", cause, "See the BMC's own page; one that was just reset needs some minutes"
            )
        return level

    def turn_on(self, within_s: float) -> None:
        if not self._reset(_ON, within_s):
            cause = f"{self.who} offers none of {' and '.join(_ON)}"
            raise self._failure("power", cause, "Update the BMC's firmware, or use driver: ipmi")

    def ask_off(self, within_s: float) -> bool:
        return self._reset(_SOFT, within_s)

    def force_off(self, within_s: float) -> bool:
        return self._reset(_HARD, within_s)

    def _reset(self, kinds: tuple[str, ...], within_s: float) -> bool:
        """Give the first of `kinds` that the BMC offers; False where it offers none, and nothing was done."""

        def order(system: Any) -> bool:
            offered = {kind.value: kind for kind in system.get_allowed_reset_system_values()}
            for kind in kinds:
                if kind in offered:
                    system.reset_system(offered[kind])
                    return True
            return False

        return self._call(f"ordering {kinds[0]}", order, min(within_s, self._power.call_timeout), orders=True)

    def _call(self, doing: str, work: Callable[[Any], T], within_s: float, orders: bool = False) -> T:
        """`work` with the system, in `within_s` in all: a BMC that sends a byte now and then is not waited for."""
        secret = password(self._host)
        connector = OnceConnector(
            self._power.bmc,
            verify=False if self._power.insecure else str(self._power.ca_file or "") or True,
            server_side_retries=1,
            default_request_timeout=within_s,
        )
        connector.until = time.monotonic() + within_s

        def run() -> T:
            try:
                # Basic: a session would be left behind on the BMC, which has few
                root = sushy.Sushy(
                    self._power.bmc, auth=BasicAuth(self._power.user or "", secret), connector=connector
                )
                return work(root.get_system(self._power.system))
            finally:
                connector.close()

        try:
            return bounded(run, within_s)
        except (TimeoutError, Late):
            raise self._late(doing, within_s, orders) from None
        except AccessError as error:
            raise self._failure(
                "power",
                f"{doing}: {self.who} does not let {self._power.user or 'us'} in ({brief(str(error), 200)})",
                "Correct power.user and the password, or the user's rights on the BMC",
            ) from None
        except SushyError as error:
            broken = isinstance(error, sushy.exceptions.ConnectionError)
            if broken and time.monotonic() >= connector.until:  # the library's own time-out came first
                raise self._late(doing, within_s, orders) from None
            raise self._failure(
                "lost" if orders and broken else "power",
                f"{doing}: {self.who}: {brief(str(error))}",
                "Compare power.bmc, power.system and power.ca_file with the BMC",
            ) from None
        except Exception as error:  # sushy hands on whatever a BMC's odd JSON leads to
            raise self._failure(
                "power",
                f"{doing}: {self.who} answers what is no Redfish ({type(error).__name__}: {brief(str(error), 200)})",
                "Correct power.bmc, or update the BMC's firmware",
            ) from None

    def _late(self, doing: str, within_s: float, orders: bool) -> HostFailure:
        return self._failure(
            "timeout" if orders else "power",
            f"{doing}: {self.who} gave no answer within {within_s:g} s",
            "See whether the BMC can be reached; one that hangs often needs a reset of its own",
        )

    def _failure(self, kind: str, cause: str, next_step: str) -> HostFailure:
        return HostFailure(self._host.name, kind, cause, next_step)
