"""What one tick costs the controller: journal, window, policy, plan, backends and picture of N hosts. No network.

    python bench/controller_tick.py [--hosts 1000] [--ticks 20]
    python bench/controller_tick.py --hosts 10000 --ticks 5 --limit 3

Prints the median and worst CPU seconds of a tick, and fails when the worst is above --limit seconds.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from fleet_controller.backends import backends
from fleet_controller.journal import Journal
from fleet_controller.latencies import HostLatencies
from fleet_controller.lifecycle import HostState
from fleet_controller.observe import HostReport, Observation
from fleet_controller.plan.tiers import fleet_steps
from fleet_controller.policies import PolicyState, decide
from fleet_controller.records import HostRecord, PoolRecord
from fleet_controller.samples import host_samples
from fleet_controller.spec import FleetSpec, load
from fleet_controller.status import Picture
from fleet_controller.tick import PoolTick
from fleet_controller.view import pool_rank, pool_view, roomless
from fleet_controller.window import Learned, PoolSample, Window
from fleet_wire.agent import AgentStatus
from fleet_wire.histogram import LatencyHistogram

# How often a tick reads all hosts: before the look, after it, for plan, and for the picture.
READS = 4

SPEC = """\
fleet: large
hosts:
  - {{name: "h[00001:{count:05}]", address: local}}
models:
  - {{name: tiny, source: tiny, entrypoint: "model:Tiny", device_memory: 1GiB}}
pools:
  - name: default
    hosts: ["h*"]
    models: [tiny]
    scaling: {{min_servers: 1, max_servers: {count}, latency: {{target_ms: 200}}, target_utilization: 0.7}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--ticks", type=int, default=20)
    parser.add_argument("--limit", type=float, default=1.0, metavar="SECONDS")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tiny").mkdir()
        (Path(folder) / "tiny" / "model.py").write_text("class Tiny: ...\n")
        file = Path(folder) / "fleet.yaml"
        file.write_text(SPEC.format(count=options.hosts))
        journal = Journal.open(f"sqlite:///{folder}/state/state.db")
        costs = measure(load(file), options.ticks, journal)
        journal.close()
    print(f"hosts {options.hosts}   ticks {options.ticks}")
    for part, seconds in costs.items():
        print(f"{part:<22} median {statistics.median(seconds):8.4f} s   worst {max(seconds):8.4f} s")
    if max(costs["whole tick"]) > options.limit:
        sys.exit(f"a tick took {max(costs['whole tick']):.2f} s of CPU, the limit is {options.limit} s")


def measure(spec: FleetSpec, ticks: int, journal: Journal) -> dict[str, list[float]]:
    """CPU seconds by part of the tick."""
    pool = spec.pool("default")
    names = pool.hosts
    records = {n: HostRecord(n, "default", HostState.READY, 1.0, agent_port=9400, release="r") for n in names}
    journal.enlist(names, 1.0)
    window, state, kept = Window(pool.scaling, Learned()), PolicyState(), HostLatencies()
    latency, done = LatencyHistogram(), 0
    costs: dict[str, list[float]] = {}
    for tick in range(ticks):
        now = 1_790_000_000.0 + 5.0 * tick
        for n in range(500):
            latency.record(20.0 + n % 90)
        done += 500 * len(names)
        bodies = [status(name, now, latency, done).model_dump_json() for name in names]
        marks = [("", time.process_time())]

        def mark(part: str, marks: list[tuple[str, float]] = marks) -> None:
            marks.append((part, time.process_time()))

        seen = [AgentStatus.model_validate_json(body) for body in bodies]
        mark("read the answers")
        for _ in range(READS):
            journal.hosts()
        mark("journal")
        observation = Observation(now, {s.host: HostReport(s, None) for s in seen}, None, None)
        for one in seen:
            kept.feed(now, one.host, one)
        mark("each host's latency")
        whole = PoolSample(
            at=now, source="1", arrivals=done, completed=done, errors=0, in_flight=5, queued=0,
            latency=latency.copy(), started_at=1.0,
        )  # fmt: skip
        window.feed(now, whole, host_samples(pool, observation))
        signal = window.signal(now, ready=len(names), starting=0)
        mark("window")
        decision, state = decide(pool.scaling, state, signal, now)
        mark("policies")
        view = pool_view(
            spec, pool, records, decision.desired, "r", decision.reason, frozenset(), observation
        )
        fleet_steps([pool_rank(spec, pool, view, observation, decided=True)], "up", now)
        mark("view and plan")
        backends(spec, records, lambda record: f"127.0.0.1:{record.agent_port}", lambda name: "token")
        mark("backends")
        tick_of = PoolTick(
            PoolRecord("default", desired=decision.desired),
            signal,
            window.latency_ms(now),
            roomless(spec, pool, observation),
        )
        Picture(spec, "up", "http://127.0.0.1:8080", records, {"default": tick_of}, observation, kept).draw(
            now
        )
        mark("picture")
        for (_, before), (part, after) in pairwise(marks):
            costs.setdefault(part, []).append(after - before)
        costs.setdefault("whole tick", []).append(marks[-1][1] - marks[0][1])
    return costs


def status(host: str, now: float, latency: LatencyHistogram, done: int) -> AgentStatus:
    return AgentStatus.model_validate(
        {
            "fleet": "large", "host": host, "action_id": "x", "release": "r", "pid": 7, "started_at": 1.0, "at": now,
            "state": "ready", "models": [{"name": "tiny", "version": "1", "ready": True}], "in_flight": 1, "queued": 0,
            "completed": done, "errors": 0, "busy_s": now - 1_790_000_000.0, "latency": latency.to_wire().model_dump(),
            "device": "cpu", "device_memory": {"used_bytes": 1 << 30, "total_bytes": 8 << 30},
        }
    )  # fmt: skip


if __name__ == "__main__":
    main()
