# The profile of everything that is built to test or to measure the product: the same for all, so that the C++ core is built
# once, without the slow steps of the product's link, with assertions and overflow checks. Sourced.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_STRIP=none
export CARGO_PROFILE_RELEASE_DEBUG_ASSERTIONS=true CARGO_PROFILE_RELEASE_OVERFLOW_CHECKS=true
# Test programs unwind in any case; with this the binary that they start is made of the same pieces.
export CARGO_PROFILE_RELEASE_PANIC=unwind
