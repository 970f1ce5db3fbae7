"""What was counted of versions that are gone stays in the totals, and takes no more room with every one."""

from __future__ import annotations

from fleet_agent.served.ledger import OLDER, Ledger
from fleet_wire.agent import ModelConfig


def test_the_last_ones_are_kept_and_the_rest_counted_together():
    ledger = Ledger()
    for number in range(300):
        model = ledger.entry(ModelConfig(name="m", version=str(number), path="/", entrypoint="m:M"))
        model.counters.completed += 1
        model.counters.latency.record(5.0)
        model.counters.queue_wait.add([0.001])
        model.counters.sent(2, [0.001])
        model.counters.generated.tokens += 3
        model.stage = "answering" if number == 0 else "gone"
    assert len(ledger.counters) < 80
    assert ("m", "0") in ledger.counters and ("m", "299") in ledger.counters
    every = list(ledger.counters.values())
    assert sum(c.completed for c in every) == sum(c.latency.count for c in every) == 300
    assert sum(c.queue_wait.histogram.count for c in every) == 600
    assert ledger.counters["m", OLDER].sizes == {2: ledger.counters["m", OLDER].completed}
    assert sum(c.generated.tokens for c in every) == 900


def test_a_version_that_comes_again_counts_on():
    ledger = Ledger()
    config = ModelConfig(name="m", version="1", path="/", entrypoint="m:M")
    first = ledger.entry(config)
    first.stage = "gone"
    assert ledger.entry(config).counters is first.counters
