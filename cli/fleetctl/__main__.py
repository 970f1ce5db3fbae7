"""`fleetctl`: parse, run, and turn whatever went wrong into one message and an exit code."""

from __future__ import annotations

import sys
from typing import NoReturn

from fleetctl.app import app
from fleetctl.failure import INTERRUPTED
from fleetctl.report import report


def main(arguments: list[str] | None = None) -> NoReturn:
    """The program. Always ends in SystemExit with an exit code of docs/cli.md."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="replace")  # a Latin-1 terminal is no reason to die over a dash
    try:
        app(args=arguments, prog_name="fleetctl")
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:  # the boundary: no operator ever sees a traceback unasked
        sys.exit(report(error))
    sys.exit(0)


if __name__ == "__main__":
    main()
