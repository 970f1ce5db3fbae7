"""Three times more requests than the device can do, each with a deadline: it goes on doing what it can, in time, and
the others are told at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

LONG = [pytest.mark.slow, pytest.mark.long, pytest.mark.timeout(600)]
DEADLINE_MS = 250


def resident(pid: int) -> float:
    """In MiB."""
    line = next(x for x in Path(f"/proc/{pid}/status").read_text().splitlines() if x.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def quantile(values: list[float], q: float) -> float:
    return sorted(values)[min(len(values) - 1, int(q * len(values)))]


@pytest.mark.parametrize(
    ("seconds", "goodput", "refusal_ms"),
    # The short form runs beside other tests and only finds a collapse; the whole one wants the machine for itself.
    [pytest.param(3, 0.3, 1000.0, marks=pytest.mark.slow), pytest.param(60, 0.95, 20.0, marks=LONG)],
)
def test_three_times_the_peak(
    start_agent: Callable[..., Any],
    affine: Callable[..., dict[str, Any]],
    load: Callable[..., Any],
    seconds: int,
    goodput: float,
    refusal_ms: float,
) -> None:
    agent = start_agent(affine(pause_ms=20, max_batch_size_=8)).ready()
    calm = load(agent, kind="closed", seconds=min(10, seconds), connections=32).result()["story"]
    peak = len(calm) / (max(end for _, end, _ in calm) - min(start for start, _, _ in calm))

    before = {pid: resident(pid) for pid in agent.group()}
    clients = load(
        agent, kind="open", rate=3 * peak, seconds=seconds, connections=512, deadline_ms=DEADLINE_MS, seed=1
    )
    agent.until(lambda: agent.status()["completed"] > len(calm) + peak, "at work", 30)
    early = {pid: resident(pid) for pid in agent.group()}
    seen = clients.result()
    after = {pid: resident(pid) for pid in agent.group()}

    story = seen["story"]
    took = max(end for _, end, _ in story) - min(due for due, _, _ in story)
    good = [end - due for due, end, status in story if status == 200 and end - due <= DEADLINE_MS / 1000]
    late = [end - due for due, end, status in story if status == 200 and end - due > DEADLINE_MS / 1000]
    refused = [1000 * (end - due) for due, end, status in story if status in (429, 503)]
    expired = [1000 * (end - due) for due, end, status in story if status == 504]
    others = [status for _, _, status in story if status not in (200, 429, 503, 504)]
    print(
        f"peak {peak:.0f}/s, offered {len(story) / took:.0f}/s for {took:.1f} s: goodput {len(good) / took:.0f}/s"
        f" = {len(good) / took / peak:.3f} of peak, {len(late)} late; {len(refused)} refused, p50"
        f" {quantile(refused, 0.5):.1f} ms, p99 {quantile(refused, 0.99):.1f} ms; {len(expired)} expired;"
        f" MiB before/early/after {[(round(before[p]), round(early[p]), round(after[p])) for p in before]}"
    )
    assert not others and seen["unanswered"] == 0
    assert len(good) / took >= goodput * peak
    assert quantile(refused, 0.99) <= refusal_ms
    assert len(expired) + len(late) <= (1 - goodput) / 5 * len(story)  # a hundredth in the whole form
    for pid in early:
        assert after[pid] <= early[pid] * 1.05 + 4
