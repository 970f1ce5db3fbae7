"""What happens between two looks of the controller, request by request: arrivals, batches, answers.

Requests go to the open host with the fewest in flight (least connections, the lowest number among equals), else
they wait in the pool's queue, first in first out. A free host takes what waits there as one batch. The kernel is one
loop over plain arrays, so that the same lines run compiled (numba, the `simulate` extra: about 10 million requests a
second) and as they stand, over lists (about 0.4 million). PURE: its randomness is handed in.

Host columns (one array each, indexed by host): `phase` (0 gone, 1 starting, 2 ready, 3 draining), `flying` (requests
at the host), `first`/`last` (its queue: slots of the request table, -1 none), `batch` (first request of the running
batch, -1 none) and `size`, `since`, `until` (the batch's beginning and end), `busy` (busy seconds before the running
batch), `done` (requests answered), `ended` (when a draining host became empty, -1 not yet). The request table is a
ring: `born` (arrival time) and `after` (the next request of the same queue).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

STARTING, READY, DRAINING = 1, 2, 3
BUCKETS = 1400  # of fleet_wire.histogram: index LOWEST .. LOWEST + BUCKETS
LOWEST = -349
# Places in the array of counters.
ARRIVED, ANSWERED, COUNTED, LATE, WAIT_S, HEAD, TAIL, DRAWN, LONGEST_S, LATE_SEEN, LAST_S, STAYED_S = range(
    12
)
COUNTERS = 12  # STAYED_S + (ARRIVED - ANSWERED) x now: request-seconds in the pool so far
FAR = 1e300


def advance(
    now: float,
    end: float,
    arrivals: Sequence[float],
    next_arrival: int,
    draws: Sequence[float],
    curve: tuple[float, float, int, int],
    slots: int,
    target_s: float,
    warmup_s: float,
    log_gamma: float,
    host: tuple[Any, ...],
    request: tuple[Any, ...],
    counters: Any,
    seen: Any,
    counted: Any,
) -> int:
    """Run all events before `end`; the index of the first arrival that is not yet in.

    `curve` is (base_s, per_request_s, max_batch, 1 where times are drawn); `seen` and `counted` are latency
    histograms (all answers; those after the warm-up). Arrivals wait in the pool's queue while no host is open.
    """
    phase, flying, first, last, batch, size, since, until, busy, done, ended = host
    born, after = request
    base_s, per_request_s, max_batch, drawn = curve
    ring = len(born)
    hosts = len(phase)
    # what the caller changed (a host became ready, a place became free): the pool's queue moves first
    moved = True
    taker = -1
    soonest, soonest_at = -1, FAR
    for h in range(hosts):
        if batch[h] >= 0 and until[h] < soonest_at:
            soonest, soonest_at = h, until[h]
    while True:
        if not moved:
            arrival = arrivals[next_arrival] if next_arrival < len(arrivals) else FAR
            if arrival >= end and soonest_at >= end:
                return next_arrival
            if arrival <= soonest_at:
                now = arrival
                next_arrival += 1
                slot = int(counters[ARRIVED]) % ring
                counters[ARRIVED] += 1
                counters[STAYED_S] -= now
                born[slot] = now
                after[slot] = -1
                if counters[TAIL] >= 0:
                    after[int(counters[TAIL])] = slot
                else:
                    counters[HEAD] = slot
                counters[TAIL] = slot
            else:
                now = soonest_at
                h = soonest
                slot = batch[h]
                for _ in range(size[h]):
                    took = now - born[slot]
                    ms = took * 1000.0
                    if ms < 0.001:
                        ms = 0.001
                    exact = math.log(ms) / log_gamma
                    bucket = int(exact) - LOWEST
                    if exact > 0 and exact > int(exact):
                        bucket += 1
                    if bucket >= BUCKETS:
                        bucket = BUCKETS - 1
                    seen[bucket] += 1
                    if took > target_s:
                        counters[LATE_SEEN] += 1
                    if born[slot] >= warmup_s:
                        counted[bucket] += 1
                        counters[COUNTED] += 1
                        if took > target_s:
                            counters[LATE] += 1
                        if took > counters[LONGEST_S]:
                            counters[LONGEST_S] = took
                    slot = after[slot]
                counters[ANSWERED] += size[h]
                counters[STAYED_S] += size[h] * now
                counters[LAST_S] = now
                done[h] += size[h]
                flying[h] -= size[h]
                busy[h] += now - since[h]
                batch[h] = -1
                if phase[h] == DRAINING and flying[h] == 0:
                    ended[h] = now
                    phase[h] = 0
                elif first[h] >= 0:
                    taker = h
                soonest, soonest_at = -1, FAR
                for other in range(hosts):
                    if batch[other] >= 0 and until[other] < soonest_at:
                        soonest, soonest_at = other, until[other]
        moved = False
        while True:
            if taker >= 0:  # a batch begins: the queue's head stays linked, its rest is the host's queue
                slot = first[taker]
                batch[taker] = slot
                n = 0
                while slot >= 0 and n < max_batch:
                    if born[slot] >= warmup_s:
                        counters[WAIT_S] += now - born[slot]
                    n += 1
                    slot = after[slot]
                first[taker] = slot
                if slot < 0:
                    last[taker] = -1
                size[taker] = n
                seconds = base_s + per_request_s * n
                if drawn:
                    seconds *= draws[int(counters[DRAWN]) % len(draws)]
                    counters[DRAWN] += 1
                since[taker] = now
                until[taker] = now + seconds
                if until[taker] < soonest_at:
                    soonest, soonest_at = taker, until[taker]
                taker = -1
            if counters[HEAD] < 0:
                break
            best, fewest = -1, slots
            for h in range(hosts):
                if phase[h] == READY and flying[h] < fewest:
                    best, fewest = h, flying[h]
                    if fewest == 0:
                        break
            if best < 0:
                break
            slot = int(counters[HEAD])
            counters[HEAD] = after[slot]
            if counters[HEAD] < 0:
                counters[TAIL] = -1
            after[slot] = -1
            if last[best] >= 0:
                after[last[best]] = slot
            else:
                first[best] = slot
            last[best] = slot
            flying[best] += 1
            if batch[best] < 0:
                taker = best
