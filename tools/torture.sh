#!/usr/bin/env bash
# A kill after every effect of every verb, or EVERY=n for each n-th, and then the long form of tests/torture, on the product.
# The seed is any number unless SEED is set; it is printed.
set -eu -o pipefail
SEED=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
ROUNDS=${ROUNDS:-60}
export SEED ROUNDS CONTAINERD="${CONTAINERD:-1.6}"

. tools/product.sh
EVERY=${EVERY:-1} cargo-zigbuild test --release $FLAGS --test steps -- --nocapture
exec cargo-zigbuild test --release $FLAGS --test torture -- --nocapture
