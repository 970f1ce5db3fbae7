"""Errand: start the agent of this action, once, and wait until it listens."""

from __future__ import annotations

import json
import os
import subprocess
import time
from typing import Any

from fleet_controller.hosts.keeper.ending import end
from fleet_controller.hosts.keeper.files import Lock, folder, remove, write
from fleet_controller.hosts.keeper.interpreter import python_of
from fleet_controller.hosts.keeper.logs import last_words
from fleet_controller.hosts.keeper.place import MARKER, ROOT_MARKER, Place
from fleet_controller.hosts.keeper.processes import holder, listeners
from fleet_controller.hosts.keeper.release import intact, not_installed
from fleet_controller.hosts.keeper.speech import Trouble

LOG_LIMIT = 10 * 1024 * 1024


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """Start the agent of this action, once, and wait until it listens."""
    place = Place(args)
    if not os.path.isdir(place.root):
        raise not_installed(args["key"])
    folder(place.run)
    with Lock(os.path.join(place.run, "lock"), args["wait_s"]):
        own = place.processes()
        agent = place.agent(own)
        if agent is not None and agent.action != args["action_id"]:
            raise Trouble(
                "conflict",
                f"an agent of another start ({agent.action}) already runs: {agent.name()}",
                "Stop that one first; two agents on one host would share its device",
            )
        if agent is not None:
            return await_listening(place, args, None)
        end(own)  # an agent that died may have left children that hold the device
        if not intact(place, args["key"]):
            raise not_installed(args["key"])
        python, base = python_of(place, args)
        if base and not os.path.exists(os.path.join(base, "environment.json")):
            raise not_installed(args["key"])
        taken = listeners(args["port"]) if args["port"] else {}
        if taken:
            raise Trouble(
                "port",
                f"port {args['port']} is already taken by {holder(taken)}",
                "Stop that process, or give the host another agent.port",
            )
        return await_listening(place, args, launch(place, args, python))


def launch(place: Place, args: dict[str, Any], python: str) -> subprocess.Popen[bytes]:
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
    try:
        if os.path.getsize(place.log) > LOG_LIMIT:
            os.replace(place.log, place.log + ".1")
    except FileNotFoundError:
        pass
    env = dict(os.environ, PYTHONPATH=os.path.join(release, "lib"), PYTHONUNBUFFERED="1")
    env[MARKER] = place.owner + args["action_id"]
    env[ROOT_MARKER] = place.root
    log = os.open(place.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        argv = [python, "-m", "fleet_agent", "--config", place.config]
        return subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=place.run,
            env=env,
            start_new_session=True,
            close_fds=True,
        )
    except OSError as error:
        raise Trouble("start", f"{python} cannot be run: {error}", "Check install.interpreter") from None
    finally:
        os.close(log)


def await_listening(
    place: Place, args: dict[str, Any], child: subprocess.Popen[bytes] | None
) -> dict[str, Any]:
    """The run file of this action's living agent. `child` is given where this keeper started it."""
    until = time.monotonic() + args["wait_s"]
    pause = 0.01
    while True:
        run, one = place.recorded()
        if one is not None and run.get("action_id") == args["action_id"]:
            return run
        ended = child.poll() is not None if child is not None else place.agent() is None
        if ended:
            how = "" if child is None else f" with exit status {child.returncode}"
            raise Trouble(
                "start",
                f"the agent ended{how} before it listened; its last words: {last_words(place)}",
                "Mend what it says, then start again; `fleetctl logs` shows more",
            )
        if time.monotonic() >= until:
            raise Trouble(
                "start",
                "the agent does not listen after {:.0f} s; its last words: {}".format(
                    args["wait_s"], last_words(place)
                ),
                "It is left running: wait for it, or stop it; `fleetctl logs` shows more",
            )
        time.sleep(pause)
        pause = min(pause * 1.3, 0.2)
