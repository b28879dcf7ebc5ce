#!/usr/bin/env bash
# The long form of tests/torture, on the product. The seed is any number unless SEED is set; it is printed.
set -eu -o pipefail
product=target/product/cricket
SEED=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
ROUNDS=${ROUNDS:-60}
export SEED ROUNDS CONTAINERD="${CONTAINERD:-1.6}"

cargo zigbuild --release $FLAGS
tools/static.sh "$PRODUCT"
mkdir -p "$(dirname "$product")"
cp "$PRODUCT" "$product"
CRICKET_BIN=$(realpath "$product")
export CRICKET_BIN
# As the tests are built, so that the C++ core is built once.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
export CARGO_PROFILE_RELEASE_PANIC=unwind
exec cargo-zigbuild test --release $FLAGS --test torture -- --nocapture
