"""Does one errand and says how it went."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from typing import Any

from fleet_controller.hosts.keeper.files import no_room
from fleet_controller.hosts.keeper.speech import Trouble, begin, say


def main(errand: Callable[[dict[str, Any]], object], text: str) -> None:
    """Do the errand with the arguments in `text` (JSON) and say how it went."""
    args = json.loads(text)
    begin(args["nonce"])
    os.umask(0o077)
    try:
        say("answer", errand(args))
    except Trouble as trouble:
        say("trouble", [trouble.kind, trouble.cause, trouble.next_step])
    except BrokenPipeError:
        os._exit(1)  # nobody listens any more
    except OSError as error:
        where = error.filename or "a file"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            full = no_room(os.path.dirname(str(where)) or "its folder", str(error.strerror))
            say("trouble", [full.kind, full.cause, full.next_step])
        elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            step = "Give this user the right to it, or set install.directory to a folder of its own"
            say("trouble", ["permission", f"{where}: {error.strerror}", step])
        else:
            raise
