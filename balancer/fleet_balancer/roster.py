"""The list of hosts as it was given, and what an operator changed in it by hand. PURE.

A drain or a weight set on the admin address stands over every list that is put afterwards, until it is taken back or
a list comes without that host: who keeps the lists need not know what the operator does at the door.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from fleet_wire.balancer import Backend, BackendList
from fleet_wire.refusal import Refusal


class Roster(BaseModel):
    """`given` as it was put, `drained` and `weights` by host name. `lenient`: how new hosts are probed (see Prober).

    Never changed: each method returns another one, so that a list that is refused leaves nothing behind.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    given: BackendList
    lenient: bool = False
    drained: frozenset[str] = frozenset()
    weights: dict[str, float] = {}

    def put(self, given: BackendList, *, lenient: bool = False) -> Roster:
        names = {b.name for b in given.backends}
        return Roster(
            given=given,
            lenient=lenient,
            drained=self.drained & names,
            weights={name: weight for name, weight in self.weights.items() if name in names},
        )

    def drain(self, name: str) -> Roster:
        """Nothing new for this host. Raises Refusal (not_found)."""
        self._check(name)
        return self.model_copy(update={"drained": self.drained | {name}})

    def undrain(self, name: str) -> Roster:
        """Take the drain back; where the list itself says draining, that ends too, until the next list says it again.

        Raises Refusal (not_found).
        """
        self._check(name)
        given = _with(self.given, name, {"state": "active"})
        return self.model_copy(update={"given": given, "drained": self.drained - {name}})

    def weigh(self, name: str, weight: float | None) -> Roster:
        """Another weight for this host; None: as the list says. Raises Refusal (not_found)."""
        self._check(name)
        others = {n: w for n, w in self.weights.items() if n != name}
        return self.model_copy(update={"weights": others if weight is None else others | {name: weight}})

    def effective(self) -> BackendList:
        """The list that counts."""
        changed = self.given
        for name in self.drained:
            changed = _with(changed, name, {"state": "draining"})
        for name, weight in self.weights.items():
            changed = _with(changed, name, {"weight": weight})
        return changed

    def redacted(self) -> BackendList:
        """The list that counts, without the hosts' tokens and the keys' digests."""
        counts = self.effective()
        backends = [b.model_copy(update={"token": None}) for b in counts.backends]
        keys = counts.keys and [k.model_copy(update={"sha256": "0" * 64}) for k in counts.keys]
        return counts.model_copy(update={"backends": backends, "keys": keys})

    def _check(self, name: str) -> None:
        if not any(b.name == name for b in self.given.backends):
            raise Refusal("not_found", f"there is no backend {name!r:.200}")


def _with(given: BackendList, name: str, update: dict[str, object]) -> BackendList:
    def changed(backend: Backend) -> Backend:
        return backend.model_copy(update=update) if backend.name == name else backend

    return given.model_copy(update={"backends": [changed(b) for b in given.backends]})
