"""Who waits for a model's answer in a call that came through ASGI. hot.py's calls wait for themselves."""

from __future__ import annotations

import asyncio

from fastapi import Request, Response

from fleet_agent.engine.engine import Engine
from fleet_agent.http.call import Call, ClientGone, Reply, deadline_of, priority_of
from fleet_agent.protocol.inference import Work
from fleet_agent.served.answer import Answer
from fleet_wire.refusal import Refusal


async def answered(engine: Engine, call: Call, work: Work) -> Reply:
    """The whole of a call to a model. Raises Refusal, and ClientGone when the client goes away before."""
    body = await call.body()
    served, payload, saying, wants_tokens = work(call.headers)(body)
    deadline = deadline_of(call.headers, call.arrived)
    future: asyncio.Future[Answer | Refusal] = asyncio.get_running_loop().create_future()

    def ended(outcome: Answer | Refusal) -> None:
        if not future.done():
            future.set_result(outcome)

    trace = None if engine.traces is None else engine.traces.begin(call.identified, served.config)
    ticket = engine.submit(served, payload, ended, deadline, priority_of(call.headers), wants_tokens, trace)
    watch = asyncio.create_task(call.gone())
    watch.add_done_callback(lambda task: None if task.cancelled() else future.cancel())
    try:
        outcome = await future
    except asyncio.CancelledError:
        engine.abandon(ticket)
        if watch.done() and not watch.cancelled():
            raise ClientGone from None
        raise
    finally:
        watch.cancel()
    if isinstance(outcome, Refusal):
        raise outcome
    return saying.reply(outcome)


async def through(engine: Engine, request: Request, work: Work | None) -> Response:
    """A handler behind FastAPI, for whoever mounts `application` without `Front`."""
    assert work is not None, "FastAPI's path is one of route's"
    call = request.scope.get("fleet.call") or Call(request.scope, request.receive)
    reply = await answered(engine, call, work)
    response = Response(reply.body, reply.status)
    response.raw_headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
    return response
