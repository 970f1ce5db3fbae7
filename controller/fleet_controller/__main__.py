"""`fleet-controller`: the control loop as a daemon, or one tick of it."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fleet_controller import handover, outside, watchdog
from fleet_controller.clock import SteadyClock
from fleet_controller.fleetfile import FleetFile, last_good
from fleet_controller.hosts.failure import HostFailure
from fleet_controller.hosts.sudo import SudoPassword
from fleet_controller.journal import Journal, JournalError
from fleet_controller.loop import Loop
from fleet_controller.pulse import LOOP_S, Pulse
from fleet_controller.requests import Refused
from fleet_controller.spec import FleetSpec, SpecError
from fleet_controller.statefolder import SQLITE, Locked, StateFolder

# How long actions under way may take to end after SIGTERM; what is cut off goes on at the next start.
GRACE_S = 3.0


def main() -> None:
    """Exit codes: 0 ended as asked, 1 can't run (another controller, no state store), 2 usage or bad fleet.yaml."""
    parser = argparse.ArgumentParser(prog="fleet-controller", description=__doc__)
    parser.add_argument(
        "--fleet", type=Path, required=True, metavar="FILE", help="the fleet.yaml to keep true"
    )
    parser.add_argument("--state", metavar="URL", help="state store, default: what fleet.yaml says")
    parser.add_argument(
        "--once", action="store_true", help="one tick: print its decisions and steps as JSON, act"
    )
    parser.add_argument("--ready-file", type=Path, metavar="FILE", help="written once the loop runs")
    parser.add_argument(
        "--watchdog",
        type=float,
        default=LOOP_S,
        metavar="SECONDS",
        help="start afresh once the loop has hung for so long (default %(default).0f)",
    )
    options = parser.parse_args()
    try:
        sys.exit(_run_by(FleetFile(options.fleet.resolve()), options))
    except (SpecError, Refused) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    except (JournalError, HostFailure, Locked, OSError) as error:
        sys.stderr.write(f"fleet-controller: {error}\n")
        sys.exit(1)


def _run_by(file: FleetFile, options: argparse.Namespace) -> int:
    """Run by fleet.yaml, or by the last good one where that is broken or can't be followed, and there is one."""
    try:
        return _run(file, file.load(), options)
    except (SpecError, Refused) as error:
        good = None if options.once else last_good(file.path, _folder_of(options.state))
        if good is None:
            raise
        sys.stderr.write(f"{file.refused(error)}\n")
    return _run(file, good, options)


def _folder_of(url: str | None) -> Path | None:
    """The state folder where --state names a file; None: it is beside fleet.yaml."""
    return Path(url.removeprefix(SQLITE)).parent if url is not None and url.startswith(SQLITE) else None


def _run(file: FleetFile, spec: FleetSpec, options: argparse.Namespace) -> int:
    kept = spec
    if options.state:
        kept = spec.model_copy(
            update={"controller": spec.controller.model_copy(update={"state": options.state})}
        )
    folder = StateFolder.of(kept)
    clock = SteadyClock()
    pulse = Pulse(clock, options.watchdog / LOOP_S)
    sudo = SudoPassword()
    with (
        folder.lock("controller"),
        handover.taking(folder.path, sudo),
        ThreadPoolExecutor(max_workers=32) as executor,
    ):
        pulse.within("the start", LOOP_S)
        end_watch = watchdog.watch(pulse, watchdog.start_afresh)
        journal = Journal.open(folder.journal_url)
        good = _taken_by_up(file, folder, journal, options)
        spec = good or spec
        world = outside.real(spec, journal, folder, executor, clock, pulse, sudo)
        try:
            loop = Loop(file, spec, journal, world)
        except Refused:
            end_watch()
            journal.close()
            raise
        file.keep_in(folder.path)
        if not file.problem and good is None:
            file.accepted()
        if options.once:
            _print_once(loop)
            return 0
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        if options.ready_file:
            _write(options.ready_file, {"pid": os.getpid(), "fleet": spec.fleet})
        pulse.ends("the start")
        try:
            loop.run(stop)
        finally:
            loop.rest(GRACE_S)
            end_watch()
            journal.close()
    return 0


def _taken_by_up(
    file: FleetFile, folder: StateFolder, journal: Journal, options: argparse.Namespace
) -> FleetSpec | None:
    """What the last `up` took, where that is in force whatever fleet.yaml says since; None: fleet.yaml is."""
    if options.once or journal.goal() != "up":
        return None
    good = last_good(file.path, folder.path)
    return good if good is not None and good.controller.apply == "up" else None


def _print_once(loop: Loop) -> None:
    report = loop.once()
    decisions = {name: decision.model_dump(mode="json") for name, decision in report.decisions.items()}
    said = {"schema": "fleetctl/tick/v1", "decisions": decisions, "steps": [asdict(s) for s in report.steps]}
    sys.stdout.write(json.dumps(said) + "\n")


def _write(path: Path, content: dict[str, Any]) -> None:
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(json.dumps(content))
    fresh.replace(path)


if __name__ == "__main__":
    main()
