"""The second copy of a request that takes long: hedging (Dean & Barroso, "The Tail at Scale", 2013).

The copy that answers first is the request's; the other one is cancelled. Decides nothing about whether a copy goes out
at all (Exchange, pool.hedge). Both are claims on their hosts; the pool counts the request once ("spare").
"""

from __future__ import annotations

from typing import Protocol

from fleet_balancer.http.response import ResponseHead
from fleet_balancer.pool import Claim
from fleet_balancer.proxy.upstream import Upstream


class Original(Protocol):
    """The request that this is a copy of."""

    def copy_for(self, upstream: Upstream) -> bytes: ...
    def copy_answers(self, copy: SecondCopy, head: ResponseHead, body: bytes) -> bool: ...
    def copy_failed(self, copy: SecondCopy) -> None: ...


class SecondCopy:
    """A copy on `claim`'s host. `upstream`: its connection, None while that is being made."""

    body_left = 0
    chunks_reply = False

    def __init__(self, original: Original, claim: Claim, method: bytes) -> None:
        self.claim = claim
        self.upstream: Upstream | None = None
        self.over = False
        self._original = original
        self._method = method

    def connected(self, claim: Claim, upstream: Upstream) -> bool:
        """`upstream` was made for it; False where it is not needed any more."""
        if self.over:
            return False
        self.upstream = upstream
        upstream.ask(self, self._method, self._original.copy_for(upstream))
        return True

    def connect_failed(self, claim: Claim, fault_of_host: bool) -> None:
        self._fail()

    def cancel(self) -> None:
        """The other copy was first, or the client left."""
        self.over = True
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()

    def _fail(self) -> None:
        if not self.over:
            self.cancel()
            self._original.copy_failed(self)

    # From the host.

    def reply(self, upstream: Upstream, head: ResponseHead, body: bytes) -> bool:
        """The first answer. One that says the host can't is none: the other copy may do better."""
        if head.status >= 500:
            self._fail()
            return False
        return self._original.copy_answers(self, head, body)

    def upstream_lost(self, upstream: Upstream, reason: str) -> None:
        self.upstream = None
        self._fail()

    def switch(self, upstream: Upstream, head: ResponseHead) -> bool:
        return False

    def interim(self, kept: bytes) -> None:
        """Whose 1xx it would be is not decided yet."""

    def send(self, data: bytes) -> None:
        raise AssertionError("what follows a reply's head goes to the request itself")

    def reply_done(self, head: ResponseHead, now: float) -> None:
        raise AssertionError("a reply is completed by the request itself")

    def hold(self) -> None:
        """All of it was sent at once: there is nobody to hold."""

    def release(self) -> None:
        """See hold()."""
