"""Editing fleet.yaml by positions: comments, order and ways of writing stay."""

from __future__ import annotations

import pytest

from fleet_controller.spec.edit import edited

BLOCK = """\
# the fleet
pools:
  - name: one   # first
    scaling:
      min_servers: 1  # at least
      latency: {target_ms: 500}   # the promise
      cooldown:
        scale_down: 5m
  - name: two
    scaling: {max_servers: 3}
  - name: three
    scaling:
  - name: four   # has none

balancer: {listen: 127.0.0.1:0}
"""


@pytest.mark.parametrize(
    ("steps", "value", "old", "new"),
    [
        (("pools", 0, "scaling", "min_servers"), "3", "min_servers: 1  #", "min_servers: 3  #"),
        (("pools", 0, "scaling", "latency", "percentile"), "99", "500}   #", "500, percentile: 99}   #"),
        (("pools", 0, "scaling", "cooldown", "scale_down"), "60s", "scale_down: 5m", "scale_down: 60s"),
        (
            ("pools", 0, "scaling", "cooldown", "scale_up"), "0s",
            "        scale_down: 5m\n", "        scale_down: 5m\n        scale_up: 0s\n",
        ),
        (
            ("pools", 0, "scaling", "predictive", "enabled"), "false",
            "        scale_down: 5m\n", "        scale_down: 5m\n      predictive: {enabled: false}\n",
        ),
        (("pools", 1, "scaling", "min_servers"), "2", "{max_servers: 3}", "{max_servers: 3, min_servers: 2}"),
        (
            ("pools", 2, "scaling", "min_servers"), "2",
            "scaling:\n  - name: four", "scaling: {min_servers: 2}\n  - name: four",
        ),
        (
            ("pools", 3, "scaling", "min_servers"), "2",
            "# has none\n", "# has none\n    scaling: {min_servers: 2}\n",
        ),
    ],
)  # fmt: skip
def test_only_that(steps: tuple[str | int, ...], value: str, old: str, new: str) -> None:
    assert BLOCK.count(old) == 1
    assert edited(BLOCK, steps, value) == BLOCK.replace(old, new)


def test_other_ends_of_lines_and_a_last_line_without_one() -> None:
    assert edited("scaling:\r\n  min_servers: 1", ("scaling", "max_servers"), "2") == (
        "scaling:\r\n  min_servers: 1\r\n  max_servers: 2\r\n"
    )
    assert edited("scaling: {}", ("scaling", "max_servers"), "2") == "scaling: {max_servers: 2}"


@pytest.mark.parametrize(
    "steps", [("pools", 9, "scaling"), ("pools", "x"), ("balancer", "listen", "x"), ("pools",)]
)
def test_a_way_that_leads_nowhere(steps: tuple[str | int, ...]) -> None:
    with pytest.raises(LookupError):
        edited(BLOCK, steps, "1")
