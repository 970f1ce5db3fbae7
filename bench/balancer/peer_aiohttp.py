"""The proxy that one writes with aiohttp on both sides: `peer_aiohttp.py PORT ORIGIN_PORT...`, round robin."""

from __future__ import annotations

import asyncio
import itertools
import sys

import uvloop
from aiohttp import ClientSession, TCPConnector, web

HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host", "upgrade", "te"}


def application(origins: list[str]) -> web.Application:
    turn = itertools.cycle(origins)
    session: list[ClientSession] = []

    async def open_session(_: web.Application) -> None:
        session.append(ClientSession(connector=TCPConnector(limit=0), auto_decompress=False))

    async def close_session(_: web.Application) -> None:
        await session[0].close()

    async def forward(request: web.Request) -> web.StreamResponse:
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        headers["X-Forwarded-For"] = request.remote or ""
        body = await request.read()
        async with session[0].request(
            request.method, next(turn) + request.path_qs, headers=headers, data=body
        ) as answer:
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in HOP}
            return web.Response(status=answer.status, headers=kept, body=await answer.read())

    app = web.Application(client_max_size=2**30)
    app.on_startup.append(open_session)
    app.on_cleanup.append(close_session)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


async def main() -> None:
    port, *origins = map(int, sys.argv[1:])
    runner = web.AppRunner(application([f"http://127.0.0.1:{o}" for o in origins]), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port, backlog=4096).start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main())
