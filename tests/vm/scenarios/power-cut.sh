# Pods come and go without rest, and the power goes: what was acknowledged is there after it, nothing belongs to nothing, the
# file system is whole, and the next pods start.
. /vm/node.sh
boot=$1

if [ "$boot" = 1 ]; then
    install_node
    import_busybox
else
    vm-client check
    journalctl --boot --unit cricket --output cat --no-pager | grep -E 'removing|undone|damaged|aside|recover' || true
    expect "what containerd has" "$(ctr --namespace k8s.io containers list --quiet | sort)" "$(cat /tmp/containers)"
    expect "what cricket doctor says" "$(cricket doctor)" "nothing is wrong"
    vm-client clean "$boot"
    for place in /var/lib/cricket/sandboxes /var/lib/cricket/containers /run/cricket/sandboxes /run/netns; do
        expect "$place" "$(ls "$place" 2>/dev/null)" ""
    done
    for address in /var/lib/cni/networks/node/10.*; do
        [ ! -e "$address" ] || fail "$address is in use, by $(od -An -c -N80 "$address")"
    done
    expect "the network's records" "$(ls /var/lib/cni/results 2>/dev/null)" ""
    expect "containerd's containers" "$(ctr --namespace k8s.io containers list --quiet)" ""
    expect "our snapshots" "$(ctr --namespace k8s.io snapshots list | grep -c '^[0-9a-f]\{64\} ')" 0
    expect "what cricket doctor says" "$(cricket doctor)" "nothing is wrong"
fi
if [ -e /vm/last ] && [ "$boot" = "$(cat /vm/last)" ]; then
    cricket selftest
    nothing_failed
    exit
fi
say "the load runs"
vm-client load "$boot"
