#!/bin/sh
# Installs what is missing and only that: `setup.sh build` for a build, `node` also for running pods, `conformance` also for
# critest and its images, `cluster` also for an API server, `vm` also for virtual machines, `lint` also for lint.
# As root it asks apt-get; otherwise it says what to type. What has no Debian package goes to target/tools.
set -eu
cd "$(dirname "$0")/.."
purpose=${1:?build, node, conformance, cluster, vm or lint}
: "${TARGET:?is set by make}"
pins='ziglang==0.17.1 cargo-zigbuild==0.24.0'
deny=0.20.2

fail() {
    echo "set-up: $*" >&2
    exit 1
}

# need PACKAGE TEST...: the package is missing when the test fails.
missing=
need() {
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}

# plugin NAME: the CNI plugin is in one of the directories that our default configuration names.
plugin() {
    [ -x "/opt/cni/bin/$1" ] || [ -x "/usr/lib/cni/$1" ]
}

# The shell of the tests' containers: the one that needs nothing but itself.
shell() {
    [ -x /bin/busybox ] && ! readelf --program-headers /bin/busybox | grep -q INTERP
}

need cmake command -v cmake
need make command -v make
need g++ command -v g++
need binutils command -v readelf
need python3-venv python3 -c 'import ensurepip, venv'
if [ "$purpose" = node ] || [ "$purpose" = conformance ] || [ "$purpose" = cluster ]; then
    [ "$(id -u)" = 0 ] || fail "containerd, runc and CNI need root: become root (sudo -s) and run it again"
    need containerd command -v containerd
    need containerd command -v containerd-shim-runc-v2
    need runc command -v runc
    need docker-registry command -v docker-registry
    need busybox-static shell
    need openssl command -v openssl
    need iproute2 command -v ip
    need iptables command -v iptables-save
    for name in bridge host-local loopback portmap; do
        need containernetworking-plugins plugin "$name"
    done
fi

if [ "$purpose" = conformance ] || [ "$purpose" = cluster ]; then
    command -v go >/dev/null || fail "Go is missing: install 1.26 or later from https://go.dev/dl/ and put it on the PATH"
    need docker-registry command -v docker-registry
    need libseccomp-dev test -f /usr/include/seccomp.h
    need dpkg-dev command -v dpkg-source
    need bzip2 command -v bzip2
    need patch command -v patch
    need pkg-config command -v pkg-config
fi

if [ "$purpose" = cluster ]; then
    need etcd-server command -v etcd
fi

if [ "$purpose" = vm ]; then
    [ "$(id -u)" = 0 ] || fail "debootstrap needs root: become root (sudo -s) and run it again"
    case $TARGET in
    aarch64-*) need qemu-system-arm command -v qemu-system-aarch64 ;;
    *) need qemu-system-x86 command -v qemu-system-x86_64 ;;
    esac
    [ "${TARGET%%-*}" = "$(uname -m)" ] || need qemu-user-static test -e "/usr/lib/binfmt.d/qemu-${TARGET%%-*}.conf"
    need debootstrap command -v debootstrap
    need e2fsprogs command -v debugfs
fi

if [ -n "$missing" ]; then
    missing=$(printf '%s\n' $missing | sort -u | tr '\n' ' ')
    command="apt-get install --no-install-recommends -y $missing"
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        fail "missing packages; as root: $command"
    fi
    echo "set-up: $command"
    export DEBIAN_FRONTEND=noninteractive
    $command || { apt-get update && $command; } || fail "apt-get could not install $missing"
fi

command -v cargo >/dev/null || fail "Rust is missing: get rustup from https://rustup.rs, open a new shell, run it again"
libraries=$(rustc --print sysroot)/lib/rustlib/$TARGET
if [ ! -d "$libraries" ]; then
    command -v rustup >/dev/null || fail "$(rustc --version) has no $TARGET: get rustup from https://rustup.rs"
    rustup target add "$TARGET"
fi

tools=target/tools
if [ "$(cat $tools/pins 2>/dev/null)" != "$pins" ]; then
    echo "set-up: $pins into $tools"
    rm -rf $tools
    python3 -m venv $tools
    $tools/bin/pip install --quiet --disable-pip-version-check $pins
    echo "$pins" >$tools/pins
fi

if [ "$purpose" = lint ] && [ ! -x "$tools/deny-$deny/bin/cargo-deny" ]; then
    echo "set-up: cargo-deny $deny into $tools"
    # From the root directory, where our .cargo/config.toml does not name another target.
    here=$PWD
    (cd / && cargo install --quiet --locked --root "$here/$tools/deny-$deny" "cargo-deny@$deny")
    ln -sf "../deny-$deny/bin/cargo-deny" "$tools/bin/cargo-deny"
fi
