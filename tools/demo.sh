#!/usr/bin/env bash
# A pod from nothing: starts a containerd and a cricket that share nothing with this machine's, lets `cricket selftest`
# judge them, and takes everything away again, also when interrupted. The exit status is the self-test's.
set -eu
cricket=$(realpath "$PRODUCT")
dir=$(mktemp -d /tmp/cricket-demo.XXXXXX)
bridge=ckdemo$$
. tools/private.sh

clean_up_more() {
    ip link show dev "$bridge" >/dev/null 2>&1 && ip link del "$bridge"
}

mkdir "$dir/net.d"
cat >"$dir/containerd.toml" <<TOML
version = 2
root = "$dir/containerd/root"
state = "$dir/containerd/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images",
  "io.containerd.internal.v1.opt"]
grpc.address = "$dir/containerd.sock"
ttrpc.address = "$dir/containerd.sock.ttrpc"
TOML
cat >"$dir/net.d/10-demo.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "cricket-demo", "plugins": [{"type": "bridge", "bridge": "$bridge", "ipam":
  {"type": "host-local", "dataDir": "$dir/ipam", "ranges": [[{"subnet": "10.214.0.0/24"}]]}}]}
JSON
cat >"$dir/cricket.toml" <<TOML
socket = "$dir/cricket.sock"
root = "$dir/cricket/root"
state = "$dir/cricket/state"
netns_dir = "$dir/cricket/netns"
containerd.address = "$dir/containerd.sock"
cni.conf_dir = "$dir/net.d"
cni.cache_dir = "$dir/cni"
runtime.runc.root = "$dir/runc"
TOML

start "$dir/containerd.log" containerd --config "$dir/containerd.toml"
await "$dir/containerd.log" "$dir/containerd.sock"
start "$dir/cricket.log" "$cricket" serve --config "$dir/cricket.toml"
await "$dir/cricket.log" "$dir/cricket.sock"
echo "demo: $("$cricket" --version) on $(containerd --version | cut -d' ' -f1,3), all of it below $dir"
"$cricket" selftest --config "$dir/cricket.toml" || { status=$?; cat "$dir/cricket.log"; exit $status; }
