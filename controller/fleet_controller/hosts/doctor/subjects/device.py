"""The GPUs themselves: memory errors, rows and pages to be retired, heat and power. PURE."""

from __future__ import annotations

from collections.abc import Iterator

from fleet_controller.hosts.doctor.chart import Chart
from fleet_controller.hosts.doctor.finding import Finding, problem, skipped, unknown, warning, well
from fleet_controller.hosts.doctor.subjects import driver, smi
from fleet_controller.hosts.doctor.subjects.smi import Row

AGGREGATE = "ecc.errors.uncorrected.aggregate.total"
VOLATILE = "ecc.errors.uncorrected.volatile.total"
RESET = "fleetctl drain {host}; then on the host: sudo nvidia-smi --gpu-reset -i "
REPLACE = "Have the GPU replaced; until then keep the host out: fleetctl drain {host}"
# What slows a GPU down, by the field's end (either name of the group), and what to do about it.
HEAT = {
    "hw_thermal_slowdown": "too hot: the hardware halves its clocks",
    "sw_thermal_slowdown": "too hot: the driver lowers its clocks",
    "hw_power_brake_slowdown": "the power supply asked it to slow down",
}
POWER_CAP = "sw_power_cap"
COOL = "Check fans, airflow and the room's temperature; on the host: nvidia-smi -q -d TEMPERATURE,PERFORMANCE"


def judge(chart: Chart) -> Iterator[Finding]:
    there = chart.facts.of("driver")
    if not there.missing and not driver.present(there):
        return
    fact = chart.facts.of("gpus")
    rows = smi.table(fact)
    if not rows:
        why = smi.complaint(fact) or "nvidia-smi shows no device"
        yield unknown("ecc", f"memory errors are unknown: {why}")
        yield unknown("throttling", f"whether it is slowed down is unknown: {why}")
        return
    yield from _errors(rows, smi.table(chart.facts.of("rows")))
    yield from _throttling(rows)


def _errors(rows: list[Row], remapped: list[Row]) -> Iterator[Finding]:
    found: list[Finding] = []
    for row in rows:
        found += _of_one(row, next((r for r in remapped if r.text("gpu_uuid") == row.text("uuid")), Row({})))
    if found:
        yield from found
    elif all(row.unsupported(VOLATILE) for row in rows):
        told = (
            "switched off" if any(row.yes("ecc.mode.current") is False for row in rows) else "not supported"
        )
        yield skipped("ecc", f"error correction is {told}")
    elif any(row.number(VOLATILE) is None and not row.unsupported(VOLATILE) for row in rows):
        yield unknown("ecc", "memory errors are unknown: nvidia-smi does not tell")
    else:
        yield well("ecc", "no uncorrected memory errors, nothing to be retired")


def _of_one(row: Row, remap: Row) -> Iterator[Finding]:
    index = row.text("index") or "?"
    gpu = f"GPU {index}"
    if row.needs_reset:
        why = "it refuses work until then"
        yield problem("ecc", f"{gpu} wants to be reset", why, RESET + index)
    if remap.yes("remapped_rows.failure"):
        why = "its memory has no spare rows left: answers may be wrong, programs die"
        yield problem("ecc", f"{gpu}: a bad memory row could not be remapped", why, REPLACE)
    elif (remap.number("remapped_rows.uncorrectable") or 0) > 0 and not remap.yes("remapped_rows.pending"):
        count = remap.number("remapped_rows.uncorrectable") or 0
        why = "they were replaced by spare ones; a number that grows announces a failing GPU"
        yield warning(
            "ecc", f"{gpu}: {count:.0f} memory rows were remapped for uncorrectable errors", why, "Watch it"
        )
    if remap.yes("remapped_rows.pending"):
        why = "the bad row is in use until the GPU is reset"
        yield problem("ecc", f"{gpu}: a bad memory row waits to be remapped", why, RESET + index)
    if row.yes("retired_pages.pending"):
        why = "the bad page is in use until the GPU is reset"
        yield problem("ecc", f"{gpu}: a bad memory page waits to be retired", why, RESET + index)
    errors, ever = row.number(VOLATILE) or 0, row.number(AGGREGATE) or 0
    if ever and not errors:
        why = "none since the driver was loaded; a number that grows announces a failing GPU"
        yield warning("ecc", f"{gpu}: {ever:.0f} uncorrected memory errors in its life", why, "Watch it")
    if errors:
        why = "each killed a program or spoilt what it computed"
        yield problem(
            "ecc",
            f"{gpu}: {errors:.0f} uncorrected memory errors since the driver was loaded",
            why,
            RESET + index,
        )


def _throttling(rows: list[Row]) -> Iterator[Finding]:
    found, told = [], False
    for row in rows:
        gpu, degrees = f"GPU {row.text('index') or '?'}", row.number("temperature.gpu")
        heat = f" at {degrees:.0f} degrees" if degrees is not None else ""
        for field in row.raw:
            end, active = field.rpartition(".")[2], row.yes(field)
            told = told or (active is not None and field.startswith("clocks_"))
            if active and end in HEAT:
                why = "it computes slower than its neighbours, and latency rises with load"
                found.append(problem("throttling", f"{gpu} is slowed down{heat}: {HEAT[end]}", why, COOL))
            elif active and end == POWER_CAP:
                why = "usual under full load; with little load its power limit is set too low"
                fix = "on the host: nvidia-smi -q -d POWER; sudo nvidia-smi -pl WATTS"
                found.append(warning("throttling", f"{gpu} is at its power limit{heat}", why, fix))
    if found:
        yield from found
    elif told:
        yield well("throttling", "no GPU is slowed down")
    else:
        yield unknown("throttling", "whether a GPU is slowed down is unknown: nvidia-smi does not tell")
