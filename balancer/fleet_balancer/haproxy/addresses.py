"""Hosts' names looked up: HAProxy wants addresses."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Collection

from fleet_balancer.member.member import Member

# A host's name is looked up again this often where that failed.
AGAIN_S = 5.0


class Addresses:
    """`known`: host names and what they resolved to."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self._next = 0.0

    async def resolve(self, members: Collection[Member]) -> None:
        """Look up what isn't known yet; who can't be found says so in its health."""
        loop = asyncio.get_running_loop()
        hosts = {member.host for member in members}
        self.known = {host: ip for host, ip in self.known.items() if host in hosts}
        for host in hosts - self.known.keys():
            try:
                found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
            except OSError as error:
                for member in members:
                    if member.host == host:
                        member.health.error = f"{host}: {error.strerror or error}"
                continue
            self.known[host] = str(found[0][4][0])

    async def tend(self, members: Collection[Member], now: float) -> None:
        """Try again, now and then, what could not be found."""
        if now >= self._next:
            self._next = now + AGAIN_S
            await self.resolve(members)
