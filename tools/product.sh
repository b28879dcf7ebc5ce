# The product, built and set aside, since cargo puts the tests' own build of the binary in its place; and the profile of
# everything else. Sourced; sets CRICKET_BIN.
product=target/product/cricket

cargo zigbuild --release $FLAGS
tools/static.sh "$PRODUCT"
mkdir -p "$(dirname "$product")"
cp "$PRODUCT" "$product"
CRICKET_BIN=$(realpath "$product")
export CRICKET_BIN
. tools/profile.sh
