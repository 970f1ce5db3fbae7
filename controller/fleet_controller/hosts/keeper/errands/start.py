"""Errand: start the agent of this action, once, and wait until it listens."""

from __future__ import annotations

import json
import os
import shutil
import time
from typing import Any

from fleet_controller.hosts.keeper.elevation import Elevation, elevation_of
from fleet_controller.hosts.keeper.ending import Own, end
from fleet_controller.hosts.keeper.files import Lock, folder, read_json, remove, write
from fleet_controller.hosts.keeper.logs import last_words
from fleet_controller.hosts.keeper.place import MARKER, ROOT_MARKER, Place
from fleet_controller.hosts.keeper.processes import holder, listeners
from fleet_controller.hosts.keeper.readiness import ready_python
from fleet_controller.hosts.keeper.release import not_installed
from fleet_controller.hosts.keeper.room import look_before_start
from fleet_controller.hosts.keeper.speech import Trouble
from fleet_controller.hosts.keeper.supervision.choice import chosen, note, present
from fleet_controller.hosts.keeper.supervision.contract import Launch, Supervision
from fleet_controller.hosts.keeper.supervision.unit import home_word


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """The run file, and `notes`: what an operator should know. Starts the agent of this action, once."""
    place = Place(args)
    if not os.path.isdir(place.root):
        raise not_installed(args["key"])
    folder(place.run)
    root = elevation_of(args)
    with Lock(os.path.join(place.run, "lock"), args["wait_s"]):
        supervision = present(place, root)
        own = Own(place, supervision)
        agent = place.agent(own.living())
        supervised = supervision.state().alive
        action = agent.action if agent is not None else (read_json(place.config) or {}).get("action_id")
        if (agent is not None or supervised) and action != args["action_id"]:
            what = (
                agent.name() if agent is not None else f"its supervisor ({supervision.kind}) starts it again"
            )
            raise Trouble(
                "conflict",
                f"an agent of another start ({action}) already runs: {what}",
                "Stop that one first; two agents on one host would share its device",
            )
        if agent is not None or supervised:
            return dict(await_listening(place, args, supervision, root), notes=[])
        end(own, supervision)  # an agent that died may have left children that hold the device
        supervision.clear()
        python = ready_python(place, args)
        taken = listeners(args["port"]) if args["port"] else {}
        if taken:
            raise Trouble(
                "port",
                "port {} is already taken by {}".format(args["port"], holder(taken)),
                "Stop that process, or give the host another agent.port",
            )
        notes = look_before_start(place, args["config"])
        supervision = chosen(place, args["supervisor"], root)
        note(place, supervision)
        notes += supervision.launch(launch_of(place, args, python))
        run = await_listening(place, args, supervision, root)
        keep_port(place, run)
        return dict(run, notes=notes)


def launch_of(place: Place, args: dict[str, Any], python: str) -> Launch:
    """Write what the agent reads, and say what is to run."""
    release = place.path("releases", args["key"])
    config = args["config"]
    token = os.path.join(place.run, "token")
    for model in config["models"]:
        model["path"] = os.path.join(release, model["path"])
    config["token_file"] = token
    config["run_file"] = place.run_file
    remove(place.run_file)
    write(token, args["token"])
    write(place.config, json.dumps(config, indent=1))
    cache = folder(place.root, "cache")
    env = dict(os.environ, PYTHONPATH=os.path.join(release, "lib"), PYTHONUNBUFFERED="1")
    env[MARKER] = place.owner + args["action_id"]
    env[ROOT_MARKER] = place.root
    # Where what was compiled is kept: the usual places in the home are read-only for a hardened unit.
    for name, below in (("CUDA_CACHE_PATH", "cuda"), ("TRITON_CACHE_DIR", "triton")):
        env.setdefault(name, os.path.join(cache, below))
    program = shutil.which(python) or python
    needed = [*paths_in(config), place.shared, os.path.realpath(program), program]
    if args["interpreter"]:
        needed.append(os.path.expanduser("~"))  # what it imports may lie in ~/.local
    writable = [place.run, cache, *(os.path.expanduser(path) for path in args["writable"])]
    downloads = os.path.expanduser("~/.cache")
    if home_word([*needed, *writable]) == "read-only" and os.path.isdir(downloads):
        writable.append(downloads)
    return Launch(
        argv=[program, "-m", "fleet_agent", "--config", place.config],
        env=env,
        limits=args["limits"],
        drain_s=float(config["drain_timeout_s"]),
        port=args["port"],
        needed=needed,
        writable=writable,
        program=args["program"],
    )


def paths_in(value: Any) -> list[str]:
    """Every absolute path in the configuration."""
    if isinstance(value, str):
        return [value] if value.startswith("/") else []
    if isinstance(value, dict):
        value = list(value.values())
    return [path for one in value for path in paths_in(one)] if isinstance(value, list) else []


def keep_port(place: Place, run: dict[str, Any]) -> None:
    """Where the system chose the port, a later restart takes the same one: its clients know that."""
    config = read_json(place.config) or {}
    address, _, port = str(config.get("listen", "")).rpartition(":")
    if port == "0":
        write(place.config, json.dumps(dict(config, listen="{}:{}".format(address, run["port"])), indent=1))


def await_listening(
    place: Place, args: dict[str, Any], supervision: Supervision, root: Elevation
) -> dict[str, Any]:
    """The run file of this action's living agent."""
    until = time.monotonic() + args["wait_s"]
    pause = 0.01
    while True:
        run, one = place.recorded()
        if one is not None and run.get("action_id") == args["action_id"]:
            return run
        state = supervision.state()
        # One that ended before it ever listened would only do so again.
        if not state.alive or (state.restarts and not run):
            words = last_words(place, root)
            how = f" with {state.last}" if state.last else ""
            supervision.kill()
            raise Trouble(
                "start",
                f"the agent ended{how} before it listened; its last words: {words}",
                "Mend what it says, then start again; `fleetctl logs` shows more",
            )
        if time.monotonic() >= until:
            raise Trouble(
                "start",
                "the agent does not listen after {:.0f} s; its last words: {}".format(
                    args["wait_s"], last_words(place, root)
                ),
                "It is left running: wait for it, or stop it; `fleetctl logs` shows more",
            )
        time.sleep(pause)
        pause = min(pause * 1.3, 0.2)
