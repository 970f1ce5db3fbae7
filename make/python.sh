#!/bin/sh
# Prints the interpreter the environment is made with: $PYTHON, else the newest one found of those the lock covers.
# Exits 1 with what to install when there is none.
set -eu

fits() { # at least 3.11, and with the standard library's own venv
    "$1" -c 'import sys, venv; raise SystemExit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

if [ -n "${PYTHON:-}" ]; then
    if fits "$PYTHON"; then
        command -v "$PYTHON"
        exit 0
    fi
    echo "make: PYTHON=$PYTHON is not a Python 3.11 or newer with its venv module." >&2
    echo "      Name another one: make up PYTHON=/path/to/python3.11" >&2
    exit 1
fi
# `python3` first: where it is new enough it is the one people expect.
for name in python3 python3.13 python3.12 python3.11; do
    if command -v "$name" >/dev/null 2>&1 && fits "$name"; then
        command -v "$name"
        exit 0
    fi
done
cat >&2 <<'EOF'
make: no Python 3.11 or newer found (looked for python3, python3.13, python3.12, python3.11).
      Debian 12: apt-get install python3      Elsewhere: install one, then make up PYTHON=/path/to/python3
EOF
exit 1
