"""Errand: the virtual environment that the agent and the models need, built beside and moved in place when complete.

Two ways: from wheels that were sent (no network, every one pinned by its sha256), or by pip from a package index.
"""

from __future__ import annotations

import os
import subprocess
from typing import Any
from urllib.parse import quote

from fleet_controller.hosts.keeper.discreet import discreet
from fleet_controller.hosts.keeper.environment import seal, whole
from fleet_controller.hosts.keeper.files import Lock, folder, remove, sha256, write
from fleet_controller.hosts.keeper.interpreter import environment_of
from fleet_controller.hosts.keeper.patience import patient
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble, say

# Tests that libraries bring are never imported. What cannot be compiled (code for a newer Python) stays as it is.
_COMPILE = """
import compileall, re, sys
place, temporary, base = sys.argv[1:]
how = {"quiet": 2, "rx": re.compile("/tests?/"), "stripdir": temporary, "prependdir": base}
try:
    compileall.compile_dir(place, workers=0, **how)
except OSError:  # no semaphores here
    compileall.compile_dir(place, workers=1, **how)
"""
_QUIET = ["--disable-pip-version-check", "--no-input", "--progress-bar", "off"]


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """`damaged`: wheels that are not what they should be, are removed, and have to be sent again."""
    place = Place(args)
    base = environment_of(place, args["environment"])
    folder(place.path("environments"))
    with Lock(place.path("environments", ".lock"), 1800):
        if whole(base):
            return {"damaged": []}
        damaged = spoilt(place, args["wheels"])
        if damaged:
            return {"damaged": damaged}
        temporary = base + ".part"
        remove(temporary)
        remove(base)
        try:
            build(place, args, temporary)
            name_finally(temporary, base)
            if args["wheels"]:
                compiled(temporary, base)
            seal(temporary, {"wheels": [one["sha256"] for one in args["wheels"]]})
            os.rename(temporary, base)
        except BaseException:
            remove(temporary)
            raise
    return {"damaged": []}


def build(place: Place, args: dict[str, Any], temporary: str) -> None:
    """An environment at `temporary`. Raises Trouble."""
    sent = bool(args["wheels"])
    needed = "venv" if sent else "ensurepip, venv"
    if subprocess.run(
        [args["python"], "-I", "-c", f"import {needed}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        stdin=subprocess.DEVNULL,
    ).returncode:
        raise Trouble(
            "environment",
            "{} cannot make virtual environments (its {} module is missing)".format(
                args["python"], needed.replace(", ", " or ")
            ),
            "Debian, Ubuntu: `apt-get install -y python3-venv`; or give an interpreter that has all in"
            " install.interpreter",
        )
    how = ["--without-pip"] if sent else []
    patient([args["python"], "-m", "venv", *how, temporary], "making the virtual environment")
    python = os.path.join(temporary, "bin", "python")
    listing = os.path.join(temporary, "requirements.txt")
    if sent:
        lines = [line(place, one) for one in args["wheels"] if one["name"] != "pip"]
        write(listing, "".join(lines))
        [carried] = [wheel_file(place, one) for one in args["wheels"] if one["name"] == "pip"]
        pip = [python, "-I", os.path.join(carried, "pip"), "install", *_QUIET, "--isolated", "--no-index"]
        pip += ["--no-deps", "--require-hashes", "--no-cache-dir", "--no-compile", "-r", listing]
        if lines:
            step = "Run `fleetctl up` again; if it fails again, install.wheels: index lets the host choose by itself"
            patient(pip, f"installing {len(lines)} wheels", step)
        return
    stays, lines = discreet(args["pip_args"])
    write(listing, "".join(each + "\n" for each in [*lines, *args["requirements"]]))
    pip = [python, "-m", "pip", "install", *_QUIET, *stays, "-r", listing]
    for name in args["requirement_files"]:
        pip += ["-r", place.path("releases", args["key"], name)]
    patient(pip, "installing what the models need")


def compiled(temporary: str, base: str) -> None:
    """Byte code for all modules, by all processors: pip would use one. A hardened agent could not write it later."""
    found = os.path.join(temporary, "lib")
    argv = [os.path.join(temporary, "bin", "python"), "-I", "-c", _COMPILE, found, temporary, base]
    patient(argv, "compiling the modules", "Run `fleetctl up` again")


def wheel_file(place: Place, one: dict[str, Any]) -> str:
    return os.path.join(place.shared, "wheels", one["sha256"], one["file"])


def line(place: Place, one: dict[str, Any]) -> str:
    """A wheel of ours as pip's requirement, with its hash."""
    return "{} @ file://{} --hash=sha256:{}\n".format(
        one["name"], quote(wheel_file(place, one)), one["sha256"]
    )


def spoilt(place: Place, wheels: list[dict[str, Any]]) -> list[str]:
    """Those that are missing or are not what their name says; they are removed."""
    found = []
    for number, one in enumerate(wheels):
        if number % 10 == 0:
            say("progress", f"checking {len(wheels)} wheels")
        try:
            good = sha256(wheel_file(place, one)) == one["sha256"]
        except OSError:
            good = False
        if not good:
            remove(os.path.join(place.shared, "wheels", one["sha256"]))
            found.append(one["sha256"])
    return found


def name_finally(temporary: str, base: str) -> None:
    """Scripts name the interpreter by its path, which is about to change."""
    scripts = os.path.join(temporary, "bin")
    for name in os.listdir(scripts):
        path = os.path.join(scripts, name)
        if not os.path.islink(path) and os.path.getsize(path) < 1 << 16:
            with open(path, "rb") as file:
                text = file.read()
            if text.startswith(b"#!" + os.fsencode(temporary)):
                with open(path, "r+b") as file:
                    file.write(text.replace(os.fsencode(temporary), os.fsencode(base), 1))
                    file.truncate()
