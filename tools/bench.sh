#!/usr/bin/env bash
# The product of `make build` beside the peer. The client is built as the tests are, so that the C++ core is built once;
# its own work is the same for both.
set -eu -o pipefail

# How long a runtime spec takes needs neither a product nor a peer. Optimised as the product is, but for LTO.
if [ "${ONLY:-}" = spec ]; then
    export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_PANIC=unwind
    exec cargo-zigbuild test --release $FLAGS --bench spec
fi
. tools/product.sh
# crun wants to see one kind of control groups; where there are both, the first.
within=()
if [ "$(basename "${OCI_RUNTIME:-}")" = crun ] && mountpoint --quiet /sys/fs/cgroup/unified; then
    within=(unshare --mount sh -c 'umount /sys/fs/cgroup/unified && exec "$@"' sh)
fi
exec "${within[@]}" cargo-zigbuild test --release $FLAGS --bench side_by_side
