"""What is sent a second time, and what never is.

The part of an Exchange that deals with a failing or slow host. Nothing is ever sent twice that was not declared
harmless: GET and HEAD, an Idempotency-Key, or the pool's `retry: idempotent`; and then only while the body is still
held, no byte of a reply has reached the client, and the pool's budget allows it (budget.py, hedge.py).
"""

from __future__ import annotations

from time import monotonic

from fleet_balancer.failure.outcome import Outcome
from fleet_balancer.http.response import ResponseHead
from fleet_balancer.pool import Claim, Pool
from fleet_balancer.proxy.placing import CONNECTING, SAFE, SENT, Placing
from fleet_balancer.proxy.second_copy import SecondCopy
from fleet_balancer.proxy.upstream import Upstream

# How often one request is sent again after its first bytes went out.
MAX_RESENDS = 3


class Again(Placing):
    """A request that may go out twice. `held`: what went out of its body so far, where it is kept at all."""

    resends = 0
    held: bytes | None = None

    def reply(self, upstream: Upstream, head: ResponseHead, body: bytes) -> bool:
        raise NotImplementedError

    def adopt(self, upstream: Upstream) -> None:
        """What arrives on `upstream` answers this request."""
        raise NotImplementedError

    def request_for(self, upstream: Upstream) -> bytes:
        """The head, as `upstream`'s host gets it."""
        raise NotImplementedError

    def _hold(self, data: bytes) -> None:
        """Keep what went out of the body, for another host, while that is little."""
        held = (self.held or b"") + data
        self.held = held if len(held) <= self.house.settings.buffer else None

    def _resent_after(self, upstream: Upstream) -> bool:
        """Whether it goes out again, because the host broke off."""
        claim = self.claim
        if self._replying or claim is None:
            return False
        if self._left_to_copy():
            return True
        if upstream.answered or not self._may_resend(claim.pool):
            return False
        if upstream.reused:
            # A kept connection that the host closed just now: a new one to the same host says which it was.
            self.resends += 1
            self.retries += 1
            self.phase = CONNECTING
            self.house.connect(self, claim)
            return True
        return self._resend(claim, "resent")

    def _resent_for(self, head: ResponseHead) -> bool:
        """Whether another host gets it, because this one answered 502, 503 or 504."""
        claim = self.claim
        if claim is None or not 502 <= head.status <= 504 or not self._may_resend(claim.pool):
            return False
        # A host that says when to come again is full and not broken.
        return self._resend(claim, "retry" if head.retry_after else "resent")

    def _resend(self, claim: Claim, outcome: Outcome) -> bool:
        """Send it again to another host; False where there is none that may take it now."""
        pool = claim.pool
        tried = {claim.member, *(self._tried or ())}
        now = monotonic()
        other = pool.claim(self.model, now, tried, self._ask)
        if other is None:
            return False
        self.resends += 1
        self.retries += 1
        self._tried = tried
        upstream, self.upstream = self.upstream, None
        if upstream is not None:
            upstream.drop()
        self._settle(outcome)
        self._take(other, now)
        return True

    def _may_resend(self, pool: Pool) -> bool:
        """Whether it may go out a second time: declared harmless, its body still here, and within the budget."""
        if self.resends >= MAX_RESENDS:
            return False
        held = self.held is not None if self.repeats else self.head.method in SAFE and not self.head.length
        return held and pool.budget.allows(monotonic(), pool.arrivals)

    # The second copy.

    def _may_hedge(self) -> None:
        """Send a second copy once it has taken longer than the pool's p95."""
        pool = self.pool
        if pool is not None and pool.asking is not None and pool.asking.hedges and self.held is not None:
            after_ms = pool.hedge.after_ms
            if after_ms is not None:
                self._hedge = self.house.loop.call_later(after_ms / 1000.0, self._send_copy)

    def _send_copy(self) -> None:
        pool = self.pool
        claim = self.claim
        if pool is None or claim is None or self.phase != SENT or self._replying:
            return
        now = monotonic()
        if not pool.hedge.allows(now, pool.arrivals):
            return
        second = pool.second_claim(claim, self.model, now, self._tried or ())
        if second is None:
            return
        self.retries += 1
        self._second = copy = SecondCopy(self, second, self.head.method)
        upstream = self.house.idle_connection(second.member, now)
        if upstream is None:
            self.house.connect(copy, second)
        else:
            copy.connected(second, upstream)

    def copy_for(self, upstream: Upstream) -> bytes:
        """All of the request, as the copy's host gets it."""
        return self.request_for(upstream) + (self.held or b"")

    def copy_answers(self, copy: SecondCopy, head: ResponseHead, body: bytes) -> bool:
        """The copy was first: it is the request now."""
        upstream = copy.upstream
        if upstream is None:
            raise AssertionError("who answers has a connection")
        self._become(copy)
        self.adopt(upstream)
        return self.reply(upstream, head, body)

    def copy_failed(self, copy: SecondCopy) -> None:
        """The copy came to nothing; the request itself is still under way."""
        self._second = None
        copy.claim.pool.settle(copy.claim, "spare", 0.0, monotonic())

    def _left_to_copy(self) -> bool:
        """Whether the copy, which is under way, is the request from now on."""
        copy = self._second
        if copy is None or copy.upstream is None:
            return False
        upstream = copy.upstream
        self._become(copy)
        self.adopt(upstream)
        return True

    def _become(self, copy: SecondCopy) -> None:
        first, self.upstream = self.upstream, copy.upstream
        if first is not None:
            first.drop()
        self._settle("spare")
        self._second = None
        copy.over = True
        self.claim = copy.claim
