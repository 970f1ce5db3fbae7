#!/bin/sh
# For packages.sh where nobody is root: downloads Debian packages and what they need, and unpacks them into
# .venv/debian without installing anything. .venv/debian/run holds a starter for each program, which the Makefile puts
# last on PATH. Enough for the tests, which run every one of these programs as the calling user.
#
#     make/unpack.sh "PACKAGE PACKAGE..."
set -eu
cd "$(dirname "$0")/.."
here=$PWD/make
packages=$1
place=$PWD/.venv/debian
log=$(mktemp)
trap 'rm -f "$log"' EXIT

give_up() {
    tail -n 20 "$log" >&2
    echo "make: the tests need:$packages. Unpacking them without root failed; as root, run" >&2
    echo "          apt-get update && apt-get install -y$packages" >&2
    echo "      then the same make command." >&2
    exit 1
}

apt() {
    "$here/apt.sh" "$place" "$@"
}

echo "make: no root here; unpacking for the tests under .venv/debian:$packages" >&2
rm -rf "$place"
mkdir -p "$place/cache/archives" "$place/run" "$place/files"
apt update >"$log" 2>&1 || give_up
# shellcheck disable=SC2086
names=$(apt install --simulate --no-install-recommends $packages 2>"$log" | awk '$1 == "Inst" {print $2}') || give_up
[ -n "$names" ] || give_up
# shellcheck disable=SC2086
(cd "$place/cache/archives" && apt download $names) >"$log" 2>&1 || give_up
for package in "$place"/cache/archives/*.deb; do
    dpkg-deb -x "$package" "$place/files" >"$log" 2>&1 || give_up
done
rm -rf "$place/cache" "$place/state"

libraries=$place/files/usr/lib/$(uname -m)-linux-gnu:$place/files/lib/$(uname -m)-linux-gnu
for program in "$place"/files/usr/bin/* "$place"/files/usr/sbin/* "$place"/files/usr/lib/openssh/* "$place"/files/bin/* "$place"/files/sbin/*; do
    [ -f "$program" ] && [ -x "$program" ] || continue
    starter=$place/run/$(basename "$program")
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%s${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec %s "$@"\n' \
        "'$libraries'" "'$program'" >"$starter"
    chmod +x "$starter"
done
