"""`python -m bench.agent` from the repository's root; QUICK=1 for a short form, --peers to choose.

Servers run on one core, the load on another (where there are two), torch with one thread, batches up to 32, of the
medium model 64. All servers of a model are up together and take turns in every round, so that the ratios hold even
where the machine is shared; each figure is the median of the rounds. The bare torch loop has the servers' core, a turn
a round. Goodput is the highest Poisson rate (open loop) at which p99 stays within 100 ms, tried again where it didn't;
added_ms is p50 at one connection less the bare forward of one sample. A peer that can't be installed or started, or
answers wrongly, is a row with an error.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from typing import Any

from bench.agent.goodput import search
from bench.agent.subjects import PEERS, ROOT, Missing, Server, await_serving, start, stopping
from bench.agent.table import Case, Seen, rows_of, show

QUICK = os.environ.get("QUICK", "") not in ("", "0")
ROUNDS, SECONDS, TRIES = (1, 1.0, 4) if QUICK else (3, 4.0, 8)
TARGET_MS = 100.0
GOODPUT_CONNECTIONS = 256
# Runs a dozen processes of its own that are never quiet: measured last and once, with all others stopped.
ALONE = ("ray-serve",)
OUT = ROOT / "bench/out/agent.json"

CASES = [
    Case("small-json-c1", "small", "json", 1, quick=True),
    Case("small-json-c32", "small", "json", 32, quick=True),
    Case("small-json-c128", "small", "json", 128),
    Case("small-binary-c32", "small", "binary", 32, quick=True),
    Case("small-binary-c128", "small", "binary", 128),
    Case("small-raw-c32", "small", "raw", 32),
    Case("small-raw-c128", "small", "raw", 128),
    Case("small-goodput", "small", "json", 0),
    Case("medium-json-c1", "medium", "json", 1, quick=True),
    Case("medium-c32", "medium", "json", 32, quick=True),
    Case("medium-c128", "medium", "json", 128),
    Case("medium-goodput", "medium", "json", 0, quick=True),
    Case("long-c32", "long", "json", 32),
]


class Bench:
    """One run. `seen` has every figure of every round, `failures` why a subject has none."""

    def __init__(self, peers: list[str], cases: list[Case]) -> None:
        usable = sorted(os.sched_getaffinity(0))
        self.server_core, self.load_core = usable[0], usable[min(1, len(usable) - 1)]
        self.peers = peers
        self.cases = cases
        self.seen: Seen = {}
        self.failures: dict[tuple[str, str], str] = {}
        self.expected: list[float] = []

    def measure(self, model: str) -> None:
        cases = [case for case in self.cases if case.model == model]
        together = ["fleetctl", *(peer for peer in self.peers if peer not in ALONE)]
        self.rounds(model, cases, together, ROUNDS)
        for peer in ALONE:
            if peer in self.peers:
                self.rounds(model, cases, [peer], 1)

    def rounds(self, model: str, cases: list[Case], subjects: list[str], rounds: int) -> None:
        servers: dict[tuple[str, str], Server] = {}
        with stopping(servers):
            for subject in subjects:
                forms = tuple({case.form for case in cases} | ({"orjson"} if subject == "mosec" else set()))
                try:
                    servers[subject, model] = start(subject, model, forms, self.server_core)
                except Missing as missing:
                    self.fail(subject, model, str(missing))
            if subjects[0] == "fleetctl":
                self.bare(model, 0.2 if QUICK else 1.0)
            for (subject, _), server in servers.items():
                try:
                    await_serving(server)
                except Missing as missing:
                    self.fail(subject, model, str(missing))
            for turn in range(rounds):
                if turn:
                    self.bare(model, 1.0)
                for case in cases:
                    for (subject, _), server in servers.items():
                        for form in case.forms_of(subject):
                            self.one(case, server, form, turn)

    def bare(self, model: str, seconds: float) -> None:
        command = [sys.executable, "-m", "bench.agent.bare", model, str(seconds)]
        ran = json.loads(self.output(self.server_core, command, ""))
        self.expected = ran["expected"]
        for batch, rate in ran["rates"].items():
            self.seen.setdefault((model, f"bare-{batch}", "throughput"), []).append(rate)
        self.seen.setdefault((model, "bare-best", "throughput"), []).append(max(ran["rates"].values()))

    def one(self, case: Case, server: Server, form: str, turn: int) -> None:
        subject = server.subject if form != "orjson" else f"{server.subject}-orjson"
        if (server.subject, case.model) in self.failures or (subject, case.name) in self.failures:
            return
        order = {"subject": server.subject, "port": server.port, "model": case.model, "form": form}
        order |= {"expected": self.expected, "seconds": SECONDS}
        try:
            if case.connections:
                got = self.load(order | {"connections": case.connections})
            else:
                got = {"goodput": self.goodput(case, subject, order, turn)}
        except RuntimeError as error:
            self.fail(subject, case.name, f"{subject}, {case.name}: {error}")
            return
        for metric, value in got.items():
            self.seen.setdefault((case.name, subject, metric), []).append(value)
        if case.connections == 1:
            forward_ms = 1000 / self.seen[case.model, "bare-1", "throughput"][-1]
            self.seen.setdefault((case.name, subject, "added_ms"), []).append(got["p50"] - forward_ms)

    def goodput(self, case: Case, subject: str, order: dict[str, Any], turn: int) -> float:
        """From the last round's answer, or from what the closed loop reached."""
        earlier = self.seen.get((case.name, subject, "goodput"))
        closed = self.seen.get((case.name.removesuffix("goodput") + "c32", subject, "throughput"))
        closed = closed or self.seen.get(
            (case.name.removesuffix("goodput") + "json-c32", subject, "throughput")
        )
        if not earlier and not closed:
            raise RuntimeError("no closed-loop figure to start from")
        first = earlier[-1] if earlier and earlier[-1] else 0.85 * (closed or [20.0])[-1]

        def holds(rate: float) -> bool:
            # Twice at most: one pause of the machine makes a p99 of a few seconds, and would end the search at once.
            more = {"rate": rate, "connections": GOODPUT_CONNECTIONS}
            return any(
                self.load(order | more | {"seed": seed})["p99"] <= TARGET_MS for seed in (turn, turn + ROUNDS)
            )

        return search(holds, first, TRIES)

    def load(self, order: dict[str, Any]) -> dict[str, float]:
        command = [sys.executable, "-m", "bench.agent.load"]
        result: dict[str, float] = json.loads(self.output(self.load_core, command, json.dumps(order)))
        return result

    def output(self, core: int, command: list[str], given: str) -> str:
        """Raises RuntimeError with the last words of what failed."""
        pinned = ["taskset", "-c", str(core), *command]
        ran = subprocess.run(pinned, cwd=ROOT, input=given, capture_output=True, text=True, check=False)
        if ran.returncode:
            raise RuntimeError((ran.stderr.strip().splitlines() or ["no reason given"])[-1])
        return ran.stdout

    def fail(self, subject: str, where: str, why: str) -> None:
        self.failures[subject, where] = why
        print(why, file=sys.stderr, flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--peers", default=",".join(PEERS), help="which peers, comma-separated")
    parser.add_argument("--cases", default="", help="only cases whose name contains this")
    arguments = parser.parse_args()
    peers = [peer for peer in arguments.peers.split(",") if peer]
    unknown = sorted(set(peers) - set(PEERS))
    if unknown:
        parser.error(f"--peers: {unknown[0]!r} is none of {', '.join(PEERS)}")
    if QUICK:
        peers = [peer for peer in peers if peer not in ALONE]
    cases = [case for case in CASES if (case.quick or not QUICK) and arguments.cases in case.name]
    bench = Bench(peers, cases)
    for model in ("small", "medium", "long"):
        if any(case.model == model for case in cases):
            bench.measure(model)
    rows = rows_of(cases, peers, bench.seen, bench.failures)
    if QUICK:
        rows += [_left_out(case, peer) for case in cases for peer in ALONE if peer in arguments.peers]
    show(cases, peers, bench.seen, bench.failures)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"quick": QUICK, "rounds": ROUNDS, "rows": rows}, indent=1) + "\n")
    print(f"rows: {OUT.relative_to(ROOT)}")
    return 1 if any(subject == "fleetctl" for subject, _ in bench.failures) else 0


def _left_out(case: Case, peer: str) -> dict[str, Any]:
    error = f"{peer} is left out of the quick form: it needs half a minute to start"
    row = {"case": case.name, "subject": "fleetctl", "metric": case.metrics[0], "value": None}
    return row | {"unit": "req/s", "peer": peer, "peer_value": None, "ratio": None, "error": error}


if __name__ == "__main__":
    sys.exit(main())
