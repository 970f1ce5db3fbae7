"""Errand: the virtual environment that the agent and the models need."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from fleet_controller.hosts.keeper.files import Lock, folder, read_json, remove, write
from fleet_controller.hosts.keeper.interpreter import python_of
from fleet_controller.hosts.keeper.patience import patient
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import Trouble


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """The virtual environment that the agent and the models need: built beside, moved in place when complete."""
    place = Place(args)
    base = python_of(place, args)[1]
    marker = "environment.json"
    if not base:
        return {}
    folder(place.path("environments"))
    with Lock(place.path("environments", ".lock"), 1800):
        if (read_json(os.path.join(base, marker)) or {}).get("complete") is True:
            return {}
        temporary = base + ".part"
        remove(temporary)
        remove(base)
        try:
            code = "import ensurepip, venv"
            if subprocess.run(
                [args["python"], "-I", "-c", code],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
            ).returncode:
                raise Trouble(
                    "environment",
                    "{} cannot make virtual environments (its ensurepip or venv module is missing)".format(
                        args["python"]
                    ),
                    "Debian, Ubuntu: `apt-get install -y python3-venv`; or give an interpreter that has all in"
                    " install.interpreter",
                )
            patient([args["python"], "-m", "venv", temporary], "making the virtual environment")
            listing = os.path.join(temporary, "requirements.txt")
            write(listing, "".join(line + "\n" for line in args["requirements"]))
            pip = [
                os.path.join(temporary, "bin", "python"),
                "-m",
                "pip",
                "install",
                "--disable-pip-version-check",
            ]
            pip += ["--no-input", "--progress-bar", "off"] + args["pip_args"] + ["-r", listing]
            for name in args["requirement_files"]:
                pip += ["-r", place.path("releases", args["key"], name)]
            patient(pip, "installing what the models need")
            scripts = os.path.join(temporary, "bin")
            for name in os.listdir(
                scripts
            ):  # they name the interpreter by its path, which is about to change
                path = os.path.join(scripts, name)
                if not os.path.islink(path) and os.path.getsize(path) < 1 << 16:
                    with open(path, "rb") as file:
                        text = file.read()
                    if text.startswith(b"#!" + os.fsencode(temporary)):
                        with open(path, "r+b") as file:
                            file.write(text.replace(os.fsencode(temporary), os.fsencode(base), 1))
                            file.truncate()
            write(os.path.join(temporary, marker), json.dumps({"complete": True}))
            os.rename(temporary, base)
        except BaseException:
            remove(temporary)
            raise
    return {}
