"""A worker: a Station that its supervisor tells what to do. Not for operators: Crew starts it.

It ends when its supervisor tells it to, or is gone: then it accepts nothing new and finishes what it has.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any

import uvloop
from pydantic import BaseModel

from fleet_balancer.access.tls import TlsError
from fleet_balancer.process.channel import Message, Respondent
from fleet_balancer.process.condition import Condition
from fleet_balancer.process.options import Options
from fleet_balancer.station import Station, host_key
from fleet_balancer.telemetry.access_log import AccessLogError
from fleet_balancer.workers.counts import Crowd, SharedCounts
from fleet_wire.balancer import BackendList
from fleet_wire.refusal import Refusal

# Requests that wait learn of room on a host that another worker made within this time.
LOOK_S = 0.005


class Hosts(BaseModel):
    """A list of hosts as the supervisor tells it: with each host's slot in the shared counts."""

    backends: BackendList
    lenient: bool
    slots: dict[str, int]


class Start(BaseModel):
    """What a worker begins with."""

    options: Options
    hosts: Hosts
    condition: Condition


class Worker:
    """Answers its supervisor's questions."""

    def __init__(self, crowd: Crowd, counts: SharedCounts, sockets: Sequence[socket.socket]) -> None:
        self.stop = asyncio.Event()
        self.grace_s = 30.0
        self.idle_s = 0.0
        self.station: Station | None = None
        self._crowd = crowd
        self._counts = counts
        self._sockets = sockets

    async def answer(self, verb: str, body: Message) -> Message:
        """One question of the supervisor. Raises Refusal."""
        if verb == "start":
            return await self._start(Start.model_validate(body))
        station = self.station
        if station is None:
            raise Refusal("unavailable", "the worker has not started", 1.0)
        match verb:
            case "replace":
                await self._replace(station, Hosts.model_validate(body))
            case "status":
                return (await station.status()).model_dump(mode="json", by_alias=True)
            case "condition":
                return (await station.condition()).model_dump(mode="json")
            case "in_flight":
                return dict(await station.in_flight())
            case "configure":
                try:
                    await station.configure(Options.model_validate(body))
                except (TlsError, AccessLogError) as error:
                    raise Refusal("bad_request", str(error)) from None
            case "stop":
                self.grace_s, self.idle_s = body["grace_s"], body["idle_s"]
                self.stop.set()
            case _:
                raise AssertionError(f"no such question: {verb}")
        return {}

    async def _start(self, start: Start) -> Message:
        try:
            station = Station(start.options)
        except (TlsError, AccessLogError) as error:
            raise Refusal("bad_request", str(error)) from None
        self.grace_s = start.options.grace_s
        station.front.key_slots = self._counts.keys()
        await self._replace(station, start.hosts)
        await station.restore(start.condition)
        await station.start(self._sockets)
        self.station = station
        return {}

    async def _replace(self, station: Station, hosts: Hosts) -> None:
        await station.replace(hosts.backends, lenient=hosts.lenient)
        front = station.front
        keys = {m: host_key(m.name, m.address) for m in front.members}
        self._crowd.seat(front.members, hosts.slots, keys)
        for pool in front.pools.values():
            pool.crowd = self._crowd

    async def look_around(self) -> None:
        """Others may have made room for those who wait here: nobody of this process's own would see to that."""
        while True:
            await asyncio.sleep(LOOK_S)
            station = self.station
            if station is None:
                continue
            waiting = sum(len(pool.waiting) for pool in station.front.pools.values())
            self._crowd.wait(waiting)
            if waiting and self._crowd.refresh(time.monotonic()):
                station.proxy.serve_waiting()


def work(request: dict[str, Any], descriptors: Sequence[int]) -> int:
    """A worker's whole life, in the process that Nursery made for it. The exit status."""
    channel, counts, *sockets = descriptors
    return uvloop.run(_serve(request["number"], request["rows"], channel, counts, sockets))


async def _serve(number: int, rows: int, channel: int, descriptor: int, listening: Sequence[int]) -> int:
    counts = SharedCounts(rows, descriptor)
    worker = Worker(Crowd(counts, number), counts, [socket.socket(fileno=d) for d in listening])
    loop = asyncio.get_running_loop()
    # A terminal's Ctrl-C comes to the whole group; the supervisor decides what it means.
    for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        loop.add_signal_handler(ignored, lambda: None)
    loop.add_signal_handler(signal.SIGTERM, worker.stop.set)
    respondent = await Respondent.over(socket.socket(fileno=channel))
    talking = loop.create_task(respondent.serve(worker.answer))
    talking.add_done_callback(lambda _: worker.stop.set())
    looking = loop.create_task(worker.look_around())
    await worker.stop.wait()
    station = worker.station
    finished = True
    if station is not None:
        finished = await station.stop(worker.grace_s, worker.idle_s)
        status = (await station.status()).model_dump(mode="json", by_alias=True)
        await respondent.farewell({"finished": finished, "status": status})
    looking.cancel()
    talking.cancel()
    return 0 if finished else 1
