#!/usr/bin/env bash
# A pod from nothing: starts a containerd and a cricket that share nothing with this machine's, lets `cricket selftest`
# judge them, and takes everything away again, also when interrupted. The exit status is the self-test's.
set -eu
cricket=$(realpath "$PRODUCT")
dir=$(mktemp -d /tmp/cricket-demo.XXXXXX)
bridge=ckdemo$$
pids=()

# Whatever happened before: containers, shims, daemons, mounts, bridge, files, in the order in which they hold each other.
clean_up() {
    trap '' INT TERM
    set +e
    # The last started first; a daemon that does not end by itself is ended.
    for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
        kill "${pids[i]}" 2>/dev/null
        timeout 30 tail --pid="${pids[i]}" -f /dev/null || kill -KILL "${pids[i]}"
    done
    for state in "$dir"/runc/k8s.io/*/; do
        [ -d "$state" ] && runc --root "$dir/runc/k8s.io" delete --force "$(basename "$state")"
    done
    for cmdline in $(grep -lzF "$dir/containerd.sock" /proc/[0-9]*/cmdline 2>/dev/null); do
        kill -KILL "$(basename "$(dirname "$cmdline")")" 2>/dev/null
    done
    awk -v dir="$dir/" 'index($5, dir) == 1 { print $5 }' /proc/self/mountinfo | tac | xargs -r umount -l
    ip link show dev "$bridge" >/dev/null 2>&1 && ip link del "$bridge"
    rm -rf --one-file-system "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# await LOG SOCKET: the daemon that was started last serves; a daemon that ended shows its log.
await() {
    for ((i = 0; i < 300; i++)); do
        [ -S "$2" ] && return
        kill -0 "${pids[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    cat "$1"
    echo "demo: no $2" >&2
    exit 1
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

containerd --config "$dir/containerd.toml" >"$dir/containerd.log" 2>&1 &
pids+=($!)
await "$dir/containerd.log" "$dir/containerd.sock"
"$cricket" serve --config "$dir/cricket.toml" >"$dir/cricket.log" 2>&1 &
pids+=($!)
await "$dir/cricket.log" "$dir/cricket.sock"
echo "demo: $("$cricket" --version) on $(containerd --version | cut -d' ' -f1,3), all of it below $dir"
"$cricket" selftest --config "$dir/cricket.toml" || { status=$?; cat "$dir/cricket.log"; exit $status; }
