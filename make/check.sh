#!/bin/sh
# Format, lint, types and import contracts: all four run, whichever fails; exits 1 if one did.
cd "$(dirname "$0")/.." || exit 1
failed=
step() {
    printf '%s: ' "$1" && shift
    "$@" || failed=yes
}
step "format" .venv/bin/ruff format --check .
step "lint" .venv/bin/ruff check .
step "types" .venv/bin/mypy
step "types of make" .venv/bin/mypy make/environment.py make/first_request.py
step "imports" .venv/bin/lint-imports
if [ -n "$failed" ]; then
    echo "make: not clean. make format mends the format and the simple findings." >&2
    exit 1
fi
