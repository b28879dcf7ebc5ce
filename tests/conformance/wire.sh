#!/bin/sh
# Prints what the pinned Go modules of the CRI and of containerd say of the wire, and compares it with the checked-in
# copy, wire.txt, that tests/wire.rs compares with our .proto files. After a change of the pins: UPDATE_WIRE=1.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$here/../.." && pwd)/target/conformance
"$here/build.sh" wire
"$out/bin/wire" >"$out/wire.txt"
[ -z "${UPDATE_WIRE:-}" ] || cp "$out/wire.txt" "$here/wire.txt"
diff -u "$here/wire.txt" "$out/wire.txt" || { echo "conformance: wire.txt is not what the Go modules say" >&2; exit 1; }
