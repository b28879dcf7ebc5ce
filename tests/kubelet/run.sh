#!/usr/bin/env bash
# Plays the scenarios of this directory on a kubelet before a containerd and a cricket of their own, in network, IPC and
# mount namespaces of their own. Variables:
#   CONTAINERD=1.6|2   Debian's containerd, runc and plugins, or 2.x and its runc and plugins, built from Go modules
#   PEER=1             before containerd's own CRI plugin instead: what the peer reaches on this machine
#   SHIM=runc-v2       whose shim: auto (the default), cricket or runc-v2
#   ONLY=regexp        only these scenarios
#   CLUSTER=1          what kubectl does through an API server, instead
#   SOAK=30m           pods come and go for so long as well, after a collection of images
# The logs are left in target/kubelet/<cricket or peer>-<containerd>, or below target/cluster.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
ring=kubelet modules=kubelet only=${ONLY:-.}
[ -z "${CLUSTER:-}" ] || ring=cluster modules='kubelet cluster' only=${ONLY:-^TestCluster$}
. tests/conformance/node.sh
inside "$modules" --net --ipc --mount
# Bidirectional mounts need a shared tree; this one ends with the namespace.
mount --make-rshared /
for place in /var/lib/kubelet /var/log/containers /var/log/pods; do
    mkdir -p "$place"
    mount -t tmpfs -o mode=755 kubelet "$place"
done

# Huge pages, where the kernel has room for some, and the controller that limits them, which v1 nodes may not have mounted.
huge_pages=/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages
huge_before=$(cat $huge_pages 2>/dev/null || true)
[ -z "$huge_before" ] || echo $((huge_before + 4)) >$huge_pages
hugetlb=/sys/fs/cgroup/hugetlb
if grep -q '^hugetlb.*1$' /proc/cgroups && [ ! -e /sys/fs/cgroup/cgroup.controllers ] && [ ! -d $hugetlb ]; then
    mkdir $hugetlb
    mount -t cgroup -o hugetlb hugetlb $hugetlb || rmdir $hugetlb
else
    hugetlb=
fi

start_node

# The kubelet's cgroups have a root of their own, in each hierarchy.
cgroup=cricket-kubelet-$$
cgroups() {
    for hierarchy in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -f "$hierarchy/cgroup.procs" ] && [ ! -L "$hierarchy" ] && echo "$hierarchy/$cgroup"
    done
    return 0
}
clean_up_more() {
    for pid in $(grep -lzF "$dir/" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3); do
        [ "$pid" = $$ ] || kill -KILL "$pid" 2>/dev/null
    done
    for path in $(cgroups); do
        find "$path" -depth -type d -exec rmdir {} + 2>/dev/null
    done
    [ -z "$huge_before" ] || echo "$huge_before" >$huge_pages
    [ -d "$hugetlb" ] || return 0
    # A hierarchy whose last group is still dying outlives its mount, and goes with a later one; the kernel takes a moment.
    for ((i = 0; i < 20; i++)); do
        umount "$hugetlb"
        sleep 1
        awk '$1 == "hugetlb" { exit $2 != 0 }' /proc/cgroups && break
        mount -t cgroup -o hugetlb hugetlb "$hugetlb"
    done
    rmdir "$hugetlb"
}
for path in $(cgroups); do
    mkdir "$path"
    for file in cpuset.cpus cpuset.mems; do
        [ ! -f "$path/$file" ] || [ -s "$path/../cgroup.controllers" ] || cat "$path/../$file" >"$path/$file"
    done
done

# A registry that wants a name and a password, over the same images, and the provider that has them. The line is bcrypt's of
# `ring:secret`.
echo 'ring:$2y$04$tnyhVaQLiArcrnXBr4T96.DEkVYhVLXS2YjBCCm2Fagj27lHotpRG' >"$dir/htpasswd"
registry private 5001 "auth: {htpasswd: {realm: ring, path: $dir/htpasswd}}"
mkdir -p "$dir/certs.d/private.ring.test" "$dir/providers"
printf 'server = "http://127.0.0.1:5001"\n' >"$dir/certs.d/private.ring.test/hosts.toml"
cat >"$dir/providers/ring-provider" <<SH
#!/bin/sh
cat >>"$dir/asked"
echo '{"apiVersion": "credentialprovider.kubelet.k8s.io/v1", "kind": "CredentialProviderResponse", "cacheKeyType": "Registry",
  "auth": {"private.ring.test": {"username": "ring", "password": "secret"}}}'
SH
chmod 755 "$dir/providers/ring-provider"

cluster= node_ip=
[ $ring = kubelet ] || . tests/kubelet/cluster.sh

status=0
RING_CLUSTER=$cluster RING_NODE_IP=$node_ip RING_DIR=$dir RING_REPORT=$report RING_BIN=$bin RING_SOCKET=$socket RING_CONTAINERD=$dir/containerd.sock RING_CGROUP=/$cgroup \
    RING_SUBJECT=$subject "$bin/kubelet-scenarios" -test.v -test.timeout 120m -test.parallel 8 \
    -test.run "$only" >"$report/scenarios.log" 2>&1 || status=$?
# A line for each scenario; all that the ones that failed have said.
grep -E '^ *--- (PASS|FAIL|SKIP)' "$report/scenarios.log" | sed -E 's/^( *)--- /\1/' || true
[ $status = 0 ] || grep -vE '^ *(=== |--- PASS)' "$report/scenarios.log" | head -300
count() {
    grep -cE "^--- $1" "$report/scenarios.log" || true
}
echo "$(count PASS) passed, $(count FAIL) failed, $(count SKIP) skipped"
exit $status
