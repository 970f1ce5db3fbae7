"""`fleet-balancer`: the command line of the front door.

Exit codes: 0 stopped in order, 1 stopped with requests cut off at the end of the grace, 2 bad usage or no listening.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

import uvloop

from fleet_balancer.life import Balancer
from fleet_balancer.process.options import Options, UsageError, read_options
from fleet_balancer.workers.nursery import Nursery
from fleet_balancer.workers.worker import work


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(message)s")

    async def run(options: Options, nursery: Nursery | None) -> int:
        return await Balancer(options, lambda: read_options(argv), nursery).run()

    try:
        options = read_options(argv)
        crew = options.config.workers > 1 and options.config.engine == "builtin"
        return uvloop.run(run(options, Nursery.open(work) if crew else None))
    except UsageError as error:
        sys.stderr.write(f"fleet-balancer: {error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main())
