"""Messages: strict where we read them, the same after a round trip, and tokens stay out of logs."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from fleet_wire.agent import AgentConfig, AgentStatus, DeviceMemory, ModelConfig, ModelStatus
from fleet_wire.balancer import Backend, BackendList, PoolConfig
from fleet_wire.histogram import HistogramWire
from fleet_wire.refusal import STATUS, Refusal

GIB = 1 << 30


def status(used: int | None, total: int | None, own: int | None) -> AgentStatus:
    return AgentStatus(
        fleet="f",
        host="h",
        action_id="a",
        release="r",
        pid=1,
        started_at=0,
        at=1,
        state="ready",
        models=[ModelStatus(name="m", version="1", ready=True, device_memory_bytes=own)],
        in_flight=0,
        queued=0,
        completed=0,
        errors=0,
        busy_s=0,
        latency=HistogramWire(),
        device="cpu",
        device_memory=DeviceMemory(used_bytes=used, total_bytes=total),
    )


@pytest.mark.parametrize(
    ("used", "total", "own", "room"),
    [
        (6 * GIB, 8 * GIB, 2 * GIB, 4 * GIB),
        (8 * GIB, 8 * GIB, None, 0),
        (None, 8 * GIB, None, None),
        (1 * GIB, None, None, None),
    ],
)
def test_room_is_what_is_free_and_what_the_model_holds(
    used: int | None, total: int | None, own: int | None, room: int | None
) -> None:
    assert status(used, total, own).room_bytes("m") == room


def test_an_agent_config_with_an_unknown_key_is_refused() -> None:
    with pytest.raises(ValidationError, match="colour"):
        AgentConfig.model_validate({"listen": "127.0.0.1:0", "models": [], "colour": "red"})


def test_messages_are_the_same_after_a_round_trip() -> None:
    config = AgentConfig(listen="127.0.0.1:0", models=[ModelConfig(name="m", path="p", entrypoint="a:B")])
    assert AgentConfig.model_validate_json(config.model_dump_json()) == config
    backends = BackendList(pools=[PoolConfig()], backends=[Backend(name="a", address="127.0.0.1:1")])
    assert BackendList.model_validate_json(backends.model_dump_json()) == backends
    assert json.loads(backends.model_dump_json())["schema"] == "fleetctl/backends/v1"


def test_a_backends_token_is_not_in_its_repr() -> None:
    assert "canary" not in repr(Backend(name="a", address="127.0.0.1:1", token="canary"))


@pytest.mark.parametrize("code", sorted(STATUS))
def test_every_refusal_has_one_shape(code: str) -> None:
    refusal = Refusal(code, "because", 1.5)
    assert json.loads(refusal.body()) == {"error": {"code": code, "message": "because", "retry_after_s": 1.5}}
    assert ("retry-after", "2") in refusal.headers() or refusal.status not in (429, 503)
