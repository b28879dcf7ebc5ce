#!/bin/sh
# Builds what conformance needs from pinned Go modules into target/conformance/bin: `build.sh conform critest crictl
# containerd runc cni wire`, or those of them that are named; `kubelet` too, with its scenarios, and `cluster`, what it takes
# beside the kubelet, if they are named. What was built from the same pins by the same script is kept.
# Nothing of this is needed to build or to run cricket.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
out=$(cd "$here/../.." && pwd)/target/conformance
# Programs for another architecture, which GOARCH names, have a place of their own.
bin=$out/bin${GOARCH:+-$GOARCH} stamps=$out/pins${GOARCH:+-$GOARCH}
mkdir -p "$bin" "$stamps"

fail() {
    echo "conformance: $*" >&2
    exit 1
}

command -v go >/dev/null || fail "Go is missing: install 1.26 or later from https://go.dev/dl/ and put it on the PATH"

# Nothing is kept outside the checkout; -modcacherw, so that it can be removed.
export GOMODCACHE="$out/go/modules" GOCACHE="$out/go/cache" GOTOOLCHAIN=local
export GOFLAGS="-mod=readonly -modcacherw -trimpath -buildvcs=false"
strip='-s -w'

# version MODULE: as the go.mod of the working directory pins it.
version() {
    go list -m -f '{{.Version}}' "$1"
}

critest() {
    cri_tools=sigs.k8s.io/cri-tools
    name="$strip -X $cri_tools/pkg/version.Version=$(version $cri_tools)"
    CGO_ENABLED=0 go test -c -ldflags "$name" -o "$bin/critest" $cri_tools/cmd/critest
    # The suite pulls one image by a digest whose content is on the internet only. The stand-in's digest takes its place.
    theirs=$(sed -nE 's/.*"test-image-digest@(sha256:[0-9a-f]{64})"/\1/p' \
        "$(go list -f '{{.Dir}}' $cri_tools/pkg/validate)/consts.go" | head -1)
    sed -i "s/$theirs/$(cat "$digest")/g" "$bin/critest"
    grep -q "test-image-digest@$(cat "$digest")" "$bin/critest"
}

crictl() {
    cri_tools=sigs.k8s.io/cri-tools
    CGO_ENABLED=0 go build -ldflags "$strip -X $cri_tools/pkg/version.Version=$(version $cri_tools)" -o "$bin/crictl" \
        $cri_tools/cmd/crictl
}

containerd() {
    containerd=github.com/containerd/containerd/v2
    mkdir -p "$bin/c2"
    CGO_ENABLED=0 go build -ldflags "$strip -X $containerd/version.Version=$(version $containerd)" -o "$bin/c2/" \
        $containerd/cmd/containerd $containerd/cmd/containerd-shim-runc-v2 $containerd/cmd/ctr
}

runc() {
    mkdir -p "$bin/c2"
    CGO_ENABLED=1 go build -tags seccomp -ldflags "$strip" -o "$bin/c2/runc" github.com/opencontainers/runc
}

cni() {
    plugins=github.com/containernetworking/plugins
    mkdir -p "$bin/c2/cni"
    name="$strip -X $plugins/pkg/utils/buildversion.BuildVersion=$(version $plugins)"
    CGO_ENABLED=0 go build -ldflags "$name" -o "$bin/c2/cni/" $plugins/plugins/main/bridge \
        $plugins/plugins/main/loopback $plugins/plugins/ipam/host-local $plugins/plugins/meta/portmap \
        $plugins/plugins/meta/bandwidth $plugins/plugins/meta/firewall
}

conform() {
    CGO_ENABLED=0 go test .
    CGO_ENABLED=0 go build -ldflags "$strip" -o "$bin/conform" .
}

wire() {
    CGO_ENABLED=0 go build -ldflags "$strip" -o "$bin/wire" .
}

# kubernetes COMMAND...: those of Kubernetes, which say what they are.
kubernetes() {
    version=$(version k8s.io/kubernetes)
    base=k8s.io/component-base/version
    minor=${version#v*.}
    for command in "$@"; do
        CGO_ENABLED=0 go build -o "$bin/$command" \
            -ldflags "$strip -X $base.gitVersion=$version -X $base.gitMajor=1 -X $base.gitMinor=${minor%%.*}" \
            "k8s.io/kubernetes/cmd/$command"
    done
}

# The kubelet, and the scenarios that are played on it, from one module.
kubelet() {
    kubernetes kubelet
    CGO_ENABLED=0 go test -c -ldflags "$strip" -o "$bin/kubelet-scenarios" .
}

# What makes a cluster of it, from the same module.
cluster() {
    kubernetes kube-apiserver kube-controller-manager kube-scheduler kubectl
}

log=$out/build.log
: >"$log"
# Where a function is the left side of `||`, `set -e` does not hold in it.
trap 'status=$?; [ $status = 0 ] || { cat "$log"; echo "conformance: the build failed" >&2; }' EXIT

for module in ${*:-conform critest crictl containerd runc cni wire}; do
    case $module in
        crictl) cd "$here/modules/critest" ;;
        kubelet | cluster) cd "$here/../kubelet" ;;
        *) cd "$here/modules/$module" ;;
    esac
    digest=
    [ "$module" = critest ] && "$here/images.sh" && digest=$out/images/digest
    pins=$(cat go.* ./*.go "$here/build.sh" $digest | sha256sum; go version)
    [ "$(cat "$stamps/$module" 2>/dev/null)" = "$pins" ] && continue
    echo "conformance: building $module from its Go modules"
    rm -f "$stamps/$module"
    "$module" >"$log" 2>&1
    echo "$pins" >"$stamps/$module"
done
