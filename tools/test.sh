#!/usr/bin/env bash
# Every ring of tests, on the product and on release code with assertions and overflow checks. All rings run; the first
# failure counts at the end.
set -eu -o pipefail
log=target/test.log

. tools/product.sh
# Of tests/steps; `make torture` tries all.
export EVERY=${EVERY:-5}
status=0
cargo-zigbuild test --release $FLAGS --workspace --no-fail-fast -- --include-ignored 2>&1 | tee "$log" || status=$?
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit $status
