# The configurations of the daemons, for run.sh: sourced. A containerd before cricket has no CRI plugin; the peer is
# containerd with it. The peer may not raise or lower its own oom_score_adj on a machine without CAP_SYS_RESOURCE.

containerd_paths() {
    cat <<TOML
root = "$dir/containerd/root"
state = "$dir/containerd/state"
grpc.address = "$dir/containerd.sock"
ttrpc.address = "$dir/containerd.sock.ttrpc"
TOML
}

# The transfer plugin finds no differ on Debian 12, whose mkfs.erofs is too old, unless one is named; and without it
# containerd 2.3 serves nothing at all.
unpack_2() {
    cat <<TOML
[[plugins."io.containerd.transfer.v1.local".unpack_config]]
platform = "linux"
snapshotter = "overlayfs"
differ = "walking"
TOML
}

# As dist/containerd.toml has it.
rare_gc() {
    cat <<TOML
[plugins."io.containerd.gc.v1.scheduler"]
pause_threshold = 0.001
TOML
}

cricket_config_1.6() {
    cat <<TOML
version = 2
$(containerd_paths)
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
$(rare_gc)
TOML
}

cricket_config_2() {
    cat <<TOML
version = 3
$(containerd_paths)
disabled_plugins = ["io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.grpc.v1.cri",
  "io.containerd.internal.v1.opt"]
$(unpack_2)
$(rare_gc)
TOML
}

cricket_config() {
    cat <<TOML
socket = "$dir/cricket.sock"
root = "$dir/cricket/root"
state = "$dir/cricket/state"
netns_dir = "$dir/cricket/netns"
containerd.address = "$dir/containerd.sock"
cni.conf_dir = "$dir/net.d"
cni.bin_dirs = ["$plugins"]
cni.cache_dir = "$dir/cni"
image.registry_dirs = ["$dir/certs.d"]
image.import_dir = ""
image.pinned = ["registry.k8s.io/pause:*"]
runtime.runc.root = "$dir/runc"
runtime.runc.shim = "${SHIM:-auto}"
TOML
}

peer_config_1.6() {
    cat <<TOML
version = 2
$(containerd_paths)
disabled_plugins = ["io.containerd.internal.v1.opt"]
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "registry.k8s.io/pause:3.6"
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "$plugins"
conf_dir = "$dir/net.d"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "$dir/certs.d"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
Root = "$dir/runc"
TOML
}

peer_config_2() {
    cat <<TOML
version = 3
$(containerd_paths)
disabled_plugins = ["io.containerd.internal.v1.opt"]
$(unpack_2)
[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "registry.k8s.io/pause:3.10.2"
[plugins."io.containerd.cri.v1.images".registry]
config_path = "$dir/certs.d"
[plugins."io.containerd.cri.v1.runtime"]
netns_mounts_under_state_dir = true
restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["$plugins"]
conf_dir = "$dir/net.d"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
Root = "$dir/runc"
TOML
}
