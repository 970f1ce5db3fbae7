"""`fleet-balancer`: the command line of the front door.

Exit codes: 0 stopped in order, 1 stopped with requests cut off at the end of the grace, 2 bad usage or no listening.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import uvloop

from fleet_balancer.life import Balancer
from fleet_balancer.options import Options, UsageError, read_options


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")

    async def run(options: Options) -> int:
        return await Balancer(options, lambda: read_options(argv)).run()

    try:
        return uvloop.run(run(read_options(argv)))
    except UsageError as error:
        sys.stderr.write(f"fleet-balancer: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
