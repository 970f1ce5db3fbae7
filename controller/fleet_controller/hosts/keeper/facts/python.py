"""Facts: the Pythons of this host, and whether torch sees its GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from fleet_controller.hosts.keeper.facts.programs import text
from fleet_controller.hosts.keeper.place import Place

_ABOUT = """
import json, sys
def can(*names):
    try:
        for name in names:
            __import__(name)
    except Exception:
        return False
    return True
told = {"version": "%d.%d.%d" % sys.version_info[:3], "venv": can("venv"), "ensurepip": can("ensurepip")}
print("fleet " + json.dumps(told))
"""
# is_available() counts devices and makes no context: it takes no device memory.
_TORCH = """
import json
try:
    import torch
except ImportError as error:
    print("fleet " + json.dumps({"missing": str(error)}))
else:
    told = {"torch": torch.__version__, "built": torch.version.cuda, "available": False, "devices": 0, "why": ""}
    try:
        told["available"] = torch.cuda.is_available()
        told["devices"] = torch.cuda.device_count()
        if torch.version.cuda and not told["available"]:
            torch.cuda.init()
    except Exception as error:
        told["why"] = " ".join(str(error).split())[:400]
    print("fleet " + json.dumps(told))
"""


def pythons(args: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"keeper": "{}.{}.{}".format(*sys.version_info[:3]), "path": sys.executable}
    interpreter = args.get("interpreter")
    wanted = os.path.expanduser(interpreter or args["python"])
    answer["agent_path"] = wanted
    told, answer["why"] = said(wanted, _ABOUT, 20)
    about = json.loads(told) if told else {}
    answer["agent"] = about.get("version", "")
    for module in ("venv", "ensurepip"):
        answer[module] = None if interpreter else about.get(module)
    return answer


def said(python: str, code: str, seconds: float) -> tuple[str, str]:
    """(what follows "fleet" in the output, or "" and why there is none)."""
    try:
        done = subprocess.run(
            [python, "-I", "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds
        )
    except OSError as error:
        return "", str(error.strerror)
    for line in reversed(text(done.stdout).splitlines()):
        if line.startswith("fleet "):
            return line[6:], ""
    return "", " ".join(text(done.stderr).split())[-300:] or "it said nothing"


def torch(place: Place, args: dict[str, Any], nvidia: bool) -> dict[str, Any]:
    """{"skipped": why}, or what torch says of CUDA in the environment that agents run in."""
    if not nvidia:
        return {"skipped": "no NVIDIA device here"}
    interpreter = args.get("interpreter")
    if interpreter:
        python = os.path.expanduser(interpreter)
    else:
        folder = place.path("environments")
        made = [os.path.join(folder, n) for n in (os.listdir(folder) if os.path.isdir(folder) else [])]
        made = [path for path in made if os.path.exists(os.path.join(path, "environment.json"))]
        if not made:
            return {"skipped": "nothing is installed yet"}
        python = os.path.join(max(made, key=os.path.getmtime), "bin", "python")
    told, why = said(python, _TORCH, 55)
    if not told:
        return {"torch": "", "why": why, "available": False}
    value: dict[str, Any] = json.loads(told)
    if "missing" in value:
        return {"skipped": f"{python} has no torch"}
    return value
