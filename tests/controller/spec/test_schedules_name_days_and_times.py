"""Days, times and holidays as people write them in schedules."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from fleet_controller.spec import load
from fleet_controller.spec.dates import day, moment
from fleet_controller.spec.schedule import Schedule, among, listed, never_comes

FLEET = """\
fleet: demo
holidays: [12-25, 2026-04-03]
hosts: [{name: "a-[1:4]", address: local}]
models: [{name: tiny, source: SOURCE, entrypoint: "model:Tiny"}]
pools:
  - name: one
    hosts: ["a-[1:2]"]
    models: [tiny]
    scaling:
      max_servers: 2
      schedules:
        - {cron: "0 8 * * *", except: holidays, servers: 2}
        - on: [holidays, 12-31]
          max_servers: 1
  - name: two
    hosts: ["a-[3:4]"]
    models: [tiny]
    scaling:
      max_servers: 2
      holidays: 01-01
      schedules: [{at: 2026-12-24T8:05, until: 2026-12-31 24:00, timezone: Europe/Berlin, servers: 2}]
"""


def test_holidays_of_the_fleet_or_of_the_pool(tmp_path: Path) -> None:
    source = Path(__file__).parent / "models" / "tiny"
    (tmp_path / "fleet.yaml").write_text(FLEET.replace("SOURCE", str(source)))
    spec = load(tmp_path / "fleet.yaml")
    one, two = spec.pool("one").scaling, spec.pool("two").scaling
    assert one.holidays == ("12-25", "2026-04-03")
    assert two.holidays == ("01-01",)
    assert (one.schedules[0].except_, one.schedules[1].on) == (("holidays",), ("holidays", "12-31"))
    assert (two.schedules[0].at, two.schedules[0].until) == ("2026-12-24 08:05", "2027-01-01 00:00")
    assert [s.name for s in (*one.schedules, *two.schedules)] == [
        'schedule "0 8 * * *" UTC',
        "schedule on holidays, 12-31 UTC",
        "schedule at 2026-12-24 08:05 Europe/Berlin",
    ]


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-12-25", "2026-12-25"),
        (" 12-25 ", "12-25"),
        ("02-29", "02-29"),
        (date(2026, 4, 3), "2026-04-03"),
    ],
)
def test_a_day(written: object, read: str) -> None:
    assert day(written) == read


@pytest.mark.parametrize(
    "written", ["", "25-12", "2026-02-29", "2026-13-01", "12/25", 1225, None, "holidays", "26-12-25"]
)
def test_what_is_no_day(written: object) -> None:
    with pytest.raises(ValueError, match=r"is not (a day|in the calendar)"):
        day(written)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("2026-12-24 08:00", "2026-12-24 08:00"),
        ("2026-12-24T08:00:00", "2026-12-24 08:00"),
        ("2026-12-24 8:00", "2026-12-24 08:00"),
        ("2026-12-31 24:00", "2027-01-01 00:00"),
    ],
)
def test_a_time(written: str, read: str) -> None:
    assert moment(written) == read


@pytest.mark.parametrize(
    "written",
    ["2026-12-24", "08:00", "2026-12-24 24:01", "2026-12-24 08:60", "2026-12-24 08:00:30", "2026-12-24 08:00Z",
     "9999-12-31 24:00", 5, None],
)  # fmt: skip
def test_what_is_no_time(written: object) -> None:
    with pytest.raises(ValueError):
        moment(written)


def test_days_of_every_year_and_of_one() -> None:
    days = listed(("holidays", "2026-12-24"), ("12-25",))
    assert [among(date.fromisoformat(d), days) for d in ("2026-12-24", "2027-12-24", "2027-12-25")] == [
        True, False, True,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "never"),
    [
        ({"cron": "0 8 * * sat", "on": "2026-12-26"}, False),
        ({"cron": "0 8 * * sat", "on": "2026-12-25"}, True),
        ({"cron": "0 8 * * sat", "on": "12-25"}, False),  # some year's is a Saturday
        ({"cron": "0 8 29 2 *", "except": "02-29"}, True),
        ({"cron": "0 8 29 2 *", "except": "2028-02-29"}, False),
        ({"on": "02-29"}, False),
        ({"on": ["2026-12-24", "12-31"], "except": ["12-24", "12-31"]}, True),
        ({"on": "2099-12-24"}, False),
        ({"cron": "* * * * *"}, False),
    ],
)
def test_a_schedule_that_never_comes_is_found(schedule: dict[str, object], never: bool) -> None:
    read = Schedule.model_validate({**schedule, "servers": 1}, by_alias=True)
    assert never_comes(read, ()) is never
