#!/usr/bin/env bash
# Every ring of tests, on the product and on release code with assertions and overflow checks. All rings run; the first
# failure counts at the end.
set -eu -o pipefail
product=target/product/cricket
log=target/test.log

cargo zigbuild --release $FLAGS
tools/static.sh "$PRODUCT"
# Aside, since cargo puts the tests' own build of the binary in its place.
mkdir -p "$(dirname "$product")"
cp "$PRODUCT" "$product"
CRICKET_BIN=$(realpath "$product")
export CRICKET_BIN

# The same profile, so that the C++ core is built once; without the slow steps of the product's link.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
# Test programs unwind in any case; with this the binary that they start is made of the same pieces.
export CARGO_PROFILE_RELEASE_PANIC=unwind
status=0
cargo-zigbuild test --release $FLAGS --workspace --no-fail-fast -- --include-ignored 2>&1 | tee "$log" || status=$?
awk '/^test result:/ { passed += $4; failed += $6 } END { printf "%d passed, %d failed\n", passed, failed }' "$log"
exit $status
