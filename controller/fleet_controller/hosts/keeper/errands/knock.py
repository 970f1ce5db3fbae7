"""Errand: listen on the agent's port for a moment, so that the caller can see whether a firewall is in the way.

Under the lock that starting an agent takes: a start that comes meanwhile waits these seconds.
"""

from __future__ import annotations

import os
import socket
from typing import Any

from fleet_controller.hosts.keeper.files import Lock
from fleet_controller.hosts.keeper.place import Place
from fleet_controller.hosts.keeper.speech import say


def errand(args: dict[str, Any]) -> dict[str, Any]:
    """{"heard": whether somebody connected and said the word}, or {"deaf": why it can't listen there: an agent could
    not either}. Says the progress "listening" once it does."""
    place = Place(args)
    try:
        if not os.path.isdir(place.run):
            return {"heard": wait(args)}
        with Lock(os.path.join(place.run, "lock"), 1.0):
            return {"heard": wait(args)}
    except OSError as error:
        return {"heard": False, "deaf": error.strerror or str(error)}


def wait(args: dict[str, Any]) -> bool:
    family = socket.AF_INET6 if ":" in args["address"] else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((args["address"], args["port"]))
        server.listen(8)
        server.settimeout(args["wait_s"])
        say("progress", "listening")
        try:
            while True:
                stream = server.accept()[0]
                with stream:
                    stream.settimeout(1)
                    if stream.recv(256) == args["word"].encode():
                        stream.sendall(args["word"].encode())
                        return True
        except OSError:
            return False
