"""The workers of one supervisor: starts them, starts them again when they die, and speaks with all as if they were one.

A list of hosts is in force when every worker has it; the first decides whether it is refused. Health checks are each
worker's own: N workers ask a host N times as often, and none depends on another being alive. The supervisor opened the
listening sockets and keeps them, so that a connection that waits for a dead worker is served by the one that follows.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Iterable, Sequence

from fleet_balancer.front import Front
from fleet_balancer.member.health import HealthRule
from fleet_balancer.process.channel import Caller, ChannelClosed, Message
from fleet_balancer.process.condition import Condition
from fleet_balancer.process.options import Options, UsageError
from fleet_balancer.station import host_key
from fleet_balancer.telemetry.merge import agreed, last_words, merge
from fleet_balancer.workers.counts import SharedCounts, SlotTable
from fleet_balancer.workers.nursery import Nursery
from fleet_wire.balancer import BackendList, BalancerStatus
from fleet_wire.refusal import Refusal

log = logging.getLogger(__name__)

# A worker that can't begin, or dies at once, is tried again at this pace.
PAUSE_S = 0.5
# How often the counters are asked for where nobody else asks, so that a killed worker's are not lost; a worker that
# does not answer that in channel.PATIENCE_S is killed.
LOOK_S = 5.0


class Hand:
    """One worker's process. `known`: what it said of itself last. `serves`: it has begun, with the present list.

    `finished`: it ended with nothing cut off.
    """

    def __init__(self, number: int, pid: int, caller: Caller) -> None:
        self.number = number
        self.pid = pid
        self.caller = caller
        self.known: BalancerStatus | None = None
        self.serves = False
        self.finished = False
        self.begun = time.monotonic()

    def kill(self) -> None:
        """For one that hangs. One that has closed the channel is ending, and its pid may be another process's soon."""
        if not self.caller.closed.is_set():
            os.kill(self.pid, signal.SIGKILL)

    async def status(self) -> BalancerStatus | None:
        """Its counts; the last ones where it is silent or gone. None: it never served."""
        try:
            answer = await self.caller.ask("status", patience_s=2.0)
            self.known = BalancerStatus.model_validate(answer)
        except (ChannelClosed, Refusal):
            pass
        return self.known


class Crew:
    """Serves with `options.config.workers` processes. Raises UsageError where they can't begin."""

    def __init__(self, options: Options, nursery: Nursery) -> None:
        self._options = options
        self._nursery = nursery
        self._size = options.config.workers
        self._counts = SharedCounts(self._size + 1)
        self._past = self._counts.row(self._size)
        self._slots = SlotTable()
        self._hosts: Message = {}
        self._condition = Condition()
        self._sockets: Sequence[socket.socket] = ()
        self._hands: dict[int, Hand] = {}
        self._ended: BalancerStatus | None = None
        self._stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    async def replace(self, backends: BackendList, *, lenient: bool) -> None:
        """Every worker that serves has `backends` when this returns; one that is just starting begins with it.

        Raises Refusal where it contradicts itself; then nobody was told of it.
        """
        Front(random.Random(), HealthRule(), 0.0).swap(backends, 0.0)  # a trial
        try:
            self._slots.assign(host_key(b.name, b.address) for b in backends.backends)
        except ValueError as error:
            raise Refusal("bad_request", str(error)) from None
        document = json.loads(backends.model_dump_json(by_alias=True))
        self._hosts = {"backends": document, "lenient": lenient, "slots": dict(self._slots.slots)}
        serving = [hand for hand in self._hands.values() if hand.serves]
        await asyncio.gather(*(self._tell(hand) for hand in serving))

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        self._sockets = list(sockets)
        loop = asyncio.get_running_loop()
        try:
            await asyncio.gather(*(self._employ(number) for number in range(self._size)))
        except (ChannelClosed, Refusal) as error:
            for hand in self._hands.values():
                hand.kill()
            reason = error.message if isinstance(error, Refusal) else str(error)
            raise UsageError(f"a worker could not begin: {reason}") from None
        self._tasks = [loop.create_task(self._mind(number)) for number in range(self._size)]
        self._tasks.append(loop.create_task(self._look()))

    async def restore(self, condition: Condition) -> None:
        self._condition = condition

    async def configure(self, options: Options) -> None:
        """Raises UsageError where a worker can't take it over."""
        self._options = options
        document = json.loads(options.model_dump_json(by_alias=True))
        for hand in list(self._hands.values()):
            try:
                await hand.caller.ask("configure", document)
            except ChannelClosed:
                continue  # it is started again, with these options
            except Refusal as refusal:
                raise UsageError(refusal.message) from None

    async def status(self) -> BalancerStatus:
        """All workers' counts together, of those that have ended too. Raises Refusal before any worker has served."""
        told = await asyncio.gather(*(hand.status() for hand in list(self._hands.values())))
        serving = [status for status in told if status is not None]
        if self._ended is not None:
            return merge(serving, [self._ended]) if serving else self._ended
        if not serving:
            raise Refusal("unavailable", "no worker serves just now", 1.0)
        return merge(serving)

    async def condition(self) -> Condition:
        """Healthy is who is so for every worker, ejected who is so for any."""
        told: list[Condition] = []
        for hand in list(self._hands.values()):
            try:
                told.append(Condition.model_validate(await hand.caller.ask("condition", patience_s=2.0)))
            except (ChannelClosed, Refusal):
                continue  # it is just starting, or ends: the others know
        if told:
            self._condition = agreed(told)
        return self._condition

    async def in_flight(self) -> dict[str, int]:
        rows = [self._counts.row(number) for number in range(self._size)]
        counts = {key: sum(row[slot] for row in rows) for key, slot in self._slots.slots.items()}
        return {key: count for key, count in counts.items() if count}

    async def elsewhere(self, in_flight: dict[str, int]) -> None:
        """Requests that the process before this one still has on the hosts: every worker sees them in the last row."""
        for key, slot in self._slots.slots.items():
            self._past[slot] = in_flight.get(key, 0)

    async def stop(self, grace_s: float, idle_s: float = 0.0) -> bool:
        self._stopping = True
        hands = list(self._hands.values())
        for one in self._sockets:
            one.close()
        for hand in hands:
            try:
                await hand.caller.ask("stop", {"grace_s": grace_s, "idle_s": idle_s})
            except ChannelClosed:
                pass  # it has ended already
        try:
            async with asyncio.timeout(grace_s + 5.0):
                await asyncio.gather(*(hand.caller.closed.wait() for hand in hands))
        except TimeoutError:
            log.error("a worker did not end in time and is killed")
        for task in self._tasks:
            task.cancel()
        for hand in hands:
            hand.kill()
            self._bury(hand)
        return all(hand.finished for hand in hands)

    # One worker.

    async def _tell(self, hand: Hand) -> None:
        """Have a worker that serves take the present list over."""
        try:
            await hand.caller.ask("replace", self._hosts)
        except ChannelClosed:
            pass  # it is gone, or will be killed for its silence: the next one begins with this list
        except Refusal as refusal:
            log.error("worker %d refuses a list that passed the trial: %s", hand.number, refusal.message)

    async def _employ(self, number: int) -> None:
        """Start a worker and wait until it serves. Raises ChannelClosed, Refusal."""
        ours, its = socket.socketpair()
        with its:
            descriptors = [its.fileno(), self._counts.descriptor]
            descriptors += [s.fileno() for s in self._sockets[number :: self._size]]
            try:
                pid = self._nursery.bear({"number": number, "rows": self._counts.rows}, descriptors)
            except OSError as error:
                ours.close()
                raise ChannelClosed(str(error)) from None
        hand = Hand(number, pid, await Caller.over(ours))
        self._hands[number] = hand
        told = self._hosts
        start = {
            "options": json.loads(self._options.model_dump_json(by_alias=True)),
            "hosts": told,
            "condition": self._condition.model_dump(mode="json"),
        }
        await hand.caller.ask("start", start, patience_s=30.0)
        while told is not self._hosts:  # there was another list meanwhile
            told = self._hosts
            await self._tell(hand)
        hand.serves = True

    async def _mind(self, number: int) -> None:
        """Wait for this worker's end, and put another one in its place."""
        while True:
            hand = self._hands.get(number)
            if hand is not None:
                await hand.caller.closed.wait()
                if self._stopping:
                    return
                self._bury(hand)
                log.error("worker %d (process %d) ended and is started again", number, hand.pid)
            if hand is None or time.monotonic() - hand.begun < PAUSE_S:
                await asyncio.sleep(PAUSE_S)
            try:
                await self._employ(number)
            except (ChannelClosed, Refusal) as error:
                log.error("worker %d could not begin: %s", number, error)
                failed = self._hands.pop(number, None)
                if failed is not None:
                    failed.kill()
                    failed.caller.close()

    def _bury(self, hand: Hand) -> None:
        """It is gone: its requests in flight are none, its counters stay."""
        self._counts.clear(hand.number)
        self._hands.pop(hand.number, None)
        left = hand.known
        if hand.caller.farewell is not None:
            left = BalancerStatus.model_validate(hand.caller.farewell["status"])
            hand.finished = hand.caller.farewell["finished"]
        if left is not None:
            left = last_words(left)
            self._ended = left if self._ended is None else merge([left], [self._ended])

    async def _look(self) -> None:
        """Keep counters fresh, and kill who hangs."""
        while True:
            await asyncio.sleep(LOOK_S)
            for hand in list(self._hands.values()):
                try:
                    answer = await hand.caller.ask("status")
                    hand.known = BalancerStatus.model_validate(answer)
                except ChannelClosed:
                    if not hand.caller.closed.is_set():
                        log.error("worker %d answers nothing and is killed", hand.number)
                        hand.kill()
                except Refusal:
                    pass  # it is just starting
