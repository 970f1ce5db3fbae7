#!/bin/sh
# Removes what make and fleetctl made in this clone. The state folder names running processes, so the fleet is stopped
# first, and nothing is removed when that fails.
cd "$(dirname "$0")/.." || exit 1
if [ -d .fleetctl ] && [ -x .venv/bin/fleetctl ]; then
    .venv/bin/fleetctl -f fleet.yaml down --yes || {
        echo "make: fleetctl down failed, so nothing was removed. Stop the fleet, or remove .fleetctl by hand." >&2
        exit 1
    }
fi
rm -rf .venv .venv.lock .fleetctl .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis dist bench/out
find . -name __pycache__ -type d -prune -exec rm -rf {} +
