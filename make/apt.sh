#!/bin/sh
# apt-get for somebody who is not root: its own lists and cache under PLACE, the system's word on what is installed.
#
#     make/apt.sh PLACE update|download|install --simulate ...
set -eu
place=$1
shift
mkdir -p "$place/state/lists/partial" "$place/cache/archives/partial"
exec apt-get -q -o Dir::State="$place/state" -o Dir::State::status=/var/lib/dpkg/status -o Dir::Cache="$place/cache" \
    -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1 -o APT::Sandbox::User= "$@"
