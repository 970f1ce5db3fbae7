"""All outside engines of an agent: which there are, and whose a call is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

import orjson

from fleet_agent.http.call import Call, Message, Receive, Reply, Send
from fleet_agent.outside.route import Claim, claimed, claimed_by_body, named
from fleet_wire.agent import AgentConfig, ModelConfig
from fleet_wire.refusal import Refusal

if TYPE_CHECKING:
    from fleet_agent.outside.engine import OutsideEngine
    from fleet_agent.outside.relay import Relay
    from fleet_agent.tracing.traces import Traces


class OutsideEngines(Mapping[str, "OutsideEngine"]):
    """By the names of their models. `start` and `stop` all; `answer` a call that is for one of them."""

    def __init__(self, config: AgentConfig, nvml: Any = None) -> None:
        """`nvml`: the pynvml module, or None where it isn't installed."""
        outside = [model for model in config.models if model.runtime == "command"]
        self.device = _resolved(config.device, nvml) if outside else ""
        self._engines: dict[str, OutsideEngine] = {}
        if outside:
            # Not at the top: aiohttp is a quarter of an agent's start, and most agents have no such engine.
            from fleet_agent.outside.engine import OutsideEngine
            from fleet_agent.outside.relay import Relay

            self._relay: type[Relay] = Relay
            for model in outside:
                self._engines[model.name] = OutsideEngine(model, self.device, config.hang_timeout_s, nvml)
        self._commands = {name: engine.command for name, engine in self._engines.items()}
        self._alone = len(outside) == len(config.models)

    def __getitem__(self, name: str) -> OutsideEngine:
        return self._engines[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._engines)

    def __len__(self) -> int:
        return len(self._engines)

    def start(self) -> None:
        for engine in self._engines.values():
            engine.start()

    async def stop(self) -> None:
        await asyncio.gather(*(engine.stop() for engine in self._engines.values()))

    def named(self, path: str) -> bool:
        """Whether the path names one of them."""
        return named(path, self._commands) is not None

    def loaded(self) -> list[ModelConfig]:
        """Those that hold what they need of the device."""
        return [engine.config for engine in self._engines.values() if engine.ready]

    def load_s(self, own: float | None) -> float | None:
        """How long it took until all were ready, of ours (`own`) and these the longest; None: they are not yet."""
        every = [engine.load_s for engine in self._engines.values()]
        known = [seconds for seconds in (own, *every) if seconds is not None]
        return max(known) if known and None not in every else None

    def reason(self) -> str | None:
        """Why they aren't all ready, or None; what has failed comes first."""
        waiting = [engine for engine in self._engines.values() if not engine.ready]
        waiting.sort(key=lambda engine: not engine.failed)
        return waiting[0].reason() if waiting else None

    def busy_s(self) -> float:
        """The sum over the engines: they share a device."""
        return sum(engine.busy_s() for engine in self._engines.values())

    async def answer(
        self,
        call: Call,
        scope: MutableMapping[str, Any],
        send: Send,
        draining: bool,
        has_token: bool,
        traces: Traces | None,
    ) -> Reply | bool:
        """False: the call is for none of them (and its body can still be read). True: it was answered; a Reply is the
        whole answer. Raises Refusal and ClientGone."""
        raw_path = scope["raw_path"].decode("latin-1")
        claim = claimed(call.method, call.path, raw_path, call.headers, self._commands, self._alone)
        body: bytes | None = None
        if claim is not None and claim.kind == "body":
            body = await call.body()
            claim, sent = claimed_by_body(claim, call.path, body, self._commands, self._alone)
            call.receive = _again(body, call.receive)
            body = sent
        if claim is None:
            return False
        engine = self._engines[claim.model]
        if claim.kind != "relay":
            return _described(engine, claim, draining)
        if draining:
            raise Refusal("unavailable", "this server is draining and takes no new requests", 1.0)
        await self._relay(engine, call, scope, send, has_token, traces).run(claim.path, body)
        return True


def _described(engine: OutsideEngine, claim: Claim, draining: bool) -> Reply:
    """Metadata and readiness, which the agent knows by itself."""
    name, version = engine.config.name, engine.config.version
    ready = engine.ready and not draining
    if claim.kind == "ready":
        if not ready:
            raise Refusal("unavailable", engine.reason() or "this server is draining", 1.0)
        return Reply(orjson.dumps({"name": name, "ready": True}))
    # Of OpenAI's form, KServe's V1 and the Open Inference Protocol at once.
    about = {
        "name": name,
        "id": name,
        "object": "model",
        "owned_by": "fleetctl",
        "version": version,
        "ready": ready,
    }
    about |= {"versions": [version], "platform": "command", "inputs": [], "outputs": []}
    return Reply(orjson.dumps(about))


def _again(body: bytes, receive: Receive) -> Receive:
    """A receive that gives a body which was read already, and then what comes after it."""
    unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def received() -> Message:
        return unread.pop() if unread else await receive()

    return received


def _resolved(device: str, nvml: Any) -> str:
    """What "auto" means on this machine, without torch: the first GPU that NVML knows, else the CPU."""
    if device != "auto":
        return device
    if nvml is None:
        return "cpu"
    try:
        nvml.nvmlInit()
        return "cuda:0" if nvml.nvmlDeviceGetCount() else "cpu"
    except nvml.NVMLError:
        return "cpu"
