#!/bin/sh
# Writes .ci/constraints.txt anew: every package of every extra, pinned with the sha256 of each of its files, for
# every platform and Python >= 3.11. Only metadata is downloaded.
#
#     make lock               newest versions that pyproject.toml allows
#     make lock KEEP=1        as little change as pyproject.toml forces
set -eu
cd "$(dirname "$0")/.."

# torch is held back on purpose: one version, so that a CPU build of the same version can stand in for the CUDA one.
torch=2.13.0
# The CPU build (torch+cpu, CPython 3.11, Linux x86_64) is not on PyPI, so its sum cannot be looked up there.
torch_cpu_sum=6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
.venv/bin/python -m venv "$scratch/env" 2>/dev/null || python3 -m venv "$scratch/env"
"$scratch/env/bin/python" -m pip install --quiet --disable-pip-version-check "uv>=0.8"
echo "torch==$torch" >"$scratch/held.txt"
printf '%s\n' pip hatchling editables >"$scratch/build.txt"
[ -z "${KEEP:-}" ] || cp .ci/constraints.txt "$scratch/lock.txt"
"$scratch/env/bin/uv" pip compile --quiet --no-config --universal --python-version 3.11 --generate-hashes \
    --all-extras --no-annotate --no-header \
    --constraint "$scratch/held.txt" pyproject.toml "$scratch/build.txt" --output-file "$scratch/lock.txt" >/dev/null
{
    echo "# Every package that make and CI install, pinned, with the sha256 of each of its files. Written by: make lock"
    # The CPU build's sum goes first in torch's own list.
    sed "s/^\(torch==$torch[^\\\\]*\)\\\\\$/\1\\\\\n    --hash=sha256:$torch_cpu_sum \\\\/" "$scratch/lock.txt"
} >"$scratch/new.txt"
grep -q "$torch_cpu_sum" "$scratch/new.txt"
mv "$scratch/new.txt" .ci/constraints.txt
grep -c '==' .ci/constraints.txt | sed 's/$/ pins in .ci\/constraints.txt/'
