# What a person does who installs cricket by docs/operations.md, for scenarios: sourced, inside the machine. `set -e` and
# pipefail are on. What is said goes to the console.

PATH=/vm/bin:$PATH
# A scenario that ends says at which command, but for one whose failure is part of what another one says.
set -E
trap 'ended=$?; [ $BASH_SUBSHELL != 0 ] || say "FAILED: line $LINENO ended with $ended: $BASH_COMMAND" >&2' ERR

# say TEXT...: progress.
say() {
    echo "[$(cut -d' ' -f1 /proc/uptime) s] $*"
}

fail() {
    say "FAILED: $*"
    exit 1
}

# expect WHAT IS SHOULD
expect() {
    [ "$2" = "$3" ] || fail "$1 is \"$2\", not \"$3\""
}

# until SECONDS WHAT COMMAND...: once a quarter of a second, until it succeeds.
until_true() {
    local seconds=$1 what=$2
    shift 2
    for ((i = 0; i < seconds * 4; i++)); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.25
    done
    fail "not within $seconds s: $what"
}

install_node() {
    expect "the file system of /sys/fs/cgroup" "$(stat -fc %T /sys/fs/cgroup)" cgroup2fs
    expect "AppArmor" "$(cat /sys/module/apparmor/parameters/enabled)" Y
    cat /vm/dist/containerd.toml >/etc/containerd/config.toml
    mkdir -p /etc/cni/net.d
    cat >/etc/cni/net.d/10-node.conflist <<'JSON'
{"cniVersion": "0.4.0", "name": "node", "plugins": [
  {"type": "bridge", "bridge": "node0", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local",
   "ranges": [[{"subnet": "10.216.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON
    install -m 0755 /vm/cricket /usr/local/bin/cricket
    install -m 0644 /vm/dist/cricket.service /etc/systemd/system/cricket.service
    systemctl enable --now containerd cricket
    cp /vm/dist/crictl.yaml /etc/crictl.yaml
    say "$(cricket --version), $(containerd --version | cut -d' ' -f1,3), Linux $(uname -r)"
}

# Nothing that systemd started has failed.
nothing_failed() {
    expect "the list of failed units" "$(systemctl list-units --failed --plain --no-legend)" ""
}

# import_busybox: the image localhost/busybox:1, from this Debian's own static busybox.
import_busybox() {
    local dir=/var/tmp/busybox layer
    mkdir -p $dir/root/bin
    cp /bin/busybox $dir/root/bin/
    for applet in sh sleep tail echo; do
        ln -sf busybox $dir/root/bin/$applet
    done
    tar -C $dir/root -cf $dir/layer.tar .
    layer=$(sha256sum <$dir/layer.tar | cut -d' ' -f1)
    cat >$dir/config.json <<JSON
{"architecture": "$(dpkg --print-architecture)", "os": "linux", "config": {"Env": ["PATH=/bin"]},
 "rootfs": {"type": "layers", "diff_ids": ["sha256:$layer"]}}
JSON
    echo '[{"Config": "config.json", "RepoTags": ["localhost/busybox:1"], "Layers": ["layer.tar"]}]' >$dir/manifest.json
    tar -C $dir -cf $dir/image.tar config.json manifest.json layer.tar
    cricket import $dir/image.tar >/dev/null
    rm -r $dir
}

# pod_files NAME COMMAND: $dir/pod.json and $dir/container.json of a pod with one container that runs a line of shell, as a
# kubelet would ask for it. Variables: LIMIT of its memory in bytes, PID=0 for a PID namespace that is the pod's, GRACE for
# the seconds that the pod has to end.
pod_files() {
    dir=/var/tmp/pods/$1
    local logs=/var/log/pods/vm_$1_uid-$1
    local options="\"security_context\": {\"namespace_options\": {\"pid\": ${PID:-1}}}"
    mkdir -p "$dir" "$logs"
    cat >"$dir/pod.json" <<JSON
{"metadata": {"name": "$1", "namespace": "vm", "uid": "uid-$1", "attempt": 0}, "hostname": "$1",
 "log_directory": "$logs", "linux": {"cgroup_parent": "vm.slice", $options}}
JSON
    cat >"$dir/container.json" <<JSON
{"metadata": {"name": "main", "attempt": 0}, "image": {"image": "localhost/busybox:1"}, "log_path": "main_0.log",
 "annotations": {"io.kubernetes.pod.terminationGracePeriod": "${GRACE:-5}"},
 "command": ["sh", "-c", "$2"], "linux": {"resources": {"memory_limit_in_bytes": ${LIMIT:-0}}, $options}}
JSON
}

# run_pod NAME COMMAND: such a pod.
run_pod() {
    local dir
    pod_files "$@"
    crictl run --no-pull "$dir/container.json" "$dir/pod.json" >"$dir/id"
}

# running: how many containers run.
running() {
    crictl ps --state running --quiet | wc -l
}
