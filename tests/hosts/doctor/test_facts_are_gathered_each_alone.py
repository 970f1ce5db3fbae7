from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from fleet_controller.hosts.keeper.facts.alone import gather
from fleet_controller.hosts.keeper.speech import Trouble


def hangs() -> None:
    """As a driver's program does: it does not mind being asked to end, and has a child that hangs as well."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.run(["sleep", "604.3"], check=False)


def test_one_that_hangs_delays_no_other_and_leaves_nothing_behind():
    began = time.monotonic()
    found = gather(
        {
            "hangs": (hangs, 0.5),
            "well": (lambda: {"pid": os.getpid()}, 5.0),
            "large": (lambda: "x" * 100_000, 5.0),
        }
    )
    assert time.monotonic() - began < 3
    assert found["hangs"] == {"trouble": "no answer within 0.5 s"}
    assert found["well"]["value"]["pid"] != os.getpid()
    assert len(found["large"]["value"]) == 100_000
    until = time.monotonic() + 5
    while (
        subprocess.run(["pgrep", "-f", "sleep 604.3"], stdout=subprocess.DEVNULL, check=False).returncode == 0
    ):
        assert time.monotonic() < until, "what it started was left running"
        time.sleep(0.02)


def test_what_goes_wrong_in_one_is_its_own():
    def trouble() -> None:
        raise Trouble("sudo", "no sudo here", "Install it")

    found = gather(
        {
            "crash": (lambda: os.kill(os.getpid(), signal.SIGKILL), 5.0),
            "raises": (lambda: 1 / 0, 5.0),
            "missing": (lambda: Path("/no/such/file").stat(), 5.0),
            "trouble": (trouble, 5.0),
            "endless": (lambda: "x" * 10_000_000, 5.0),
        }
    )
    assert found["crash"] == {"trouble": "it was ended while it was looked at"}
    assert found["raises"] == {"trouble": "ZeroDivisionError: division by zero"}
    assert found["missing"] == {"trouble": "No such file or directory (/no/such/file)"}
    assert found["trouble"] == {"trouble": "no sudo here"}
    assert found["endless"] == {"trouble": "said too much"}
