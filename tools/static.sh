#!/bin/sh
# Proves by reading it that a binary is static and small enough, and prints its size.
set -eu
binary=$1
limit=7000000

fail() {
    echo "$binary: $*" >&2
    exit 1
}

segments=$(readelf --wide --program-headers "$binary")
libraries=$(readelf --wide --dynamic "$binary")
case $segments in *INTERP*) fail "wants a program loader, so it is not static" ;; esac
case $libraries in *NEEDED*) fail "wants shared libraries, so it is not static" ;; esac
bytes=$(wc -c <"$binary")
[ "$bytes" -le $limit ] || fail "$bytes bytes; at most $limit"
echo "$binary: static, $bytes bytes of $limit allowed"
