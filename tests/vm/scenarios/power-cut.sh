# Pods come and go without rest, and the power goes: what was acknowledged is there after it, nothing belongs to nothing, the
# file system is whole, and the next pods start.
. /vm/node.sh
boot=$1
told=/vm/out/told

# tell WORD ID: on disk when it returns.
tell() {
    echo "$@" >>"$told.$1.$lane"
    sync "$told.$1.$lane"
}

# acknowledged NOUN: what was made, and whose removal had not begun.
acknowledged() {
    touch "$told.$1.0" "$told.removed.0"
    cat "$told.$1".* | cut -d' ' -f2 | sort >/tmp/made
    cat "$told.removed".* | cut -d' ' -f2 | sort >/tmp/removed
    comm -23 /tmp/made /tmp/removed
}

# load LANE: makes pods, keeps every third, and removes the others.
load() {
    lane=$1
    local n pod container
    for ((n = 1; ; n++)); do
        pod_files "cut-$boot-$lane-$n" 'exec sleep 1000000'
        pod=$(crictl runp "$dir/pod.json")
        tell pod "$pod"
        container=$(crictl create --no-pull "$pod" "$dir/container.json" "$dir/pod.json")
        tell container "$container"
        crictl start "$container" >/dev/null
        [ $((n % 3)) != 0 ] || continue
        tell removed "$container"
        tell removed "$pod"
        crictl stopp "$pod" >/dev/null
        crictl rmp "$pod" >/dev/null
    done
}

if [ "$boot" = 1 ]; then
    install_node
    import_busybox
fi
until_true 120 "cricket answers" crictl info
if [ "$boot" != 1 ]; then
    journalctl --boot --unit cricket --output cat --no-pager | grep -E 'removing|undone|damaged|aside|recover' || true
    expect "what runs" "$(running)" 0
    expect "the number of ready pods" "$(crictl pods --state ready --quiet | wc -l)" 0
    crictl pods --quiet --no-trunc | sort >/tmp/pods
    crictl ps --all --quiet --no-trunc | sort >/tmp/containers
    acknowledged pod >/tmp/acknowledged
    say "$(wc -l </tmp/acknowledged) pods were acknowledged and kept, $(wc -l </tmp/pods) are there"
    expect "the acknowledged pods that are lost" "$(comm -13 /tmp/pods /tmp/acknowledged)" ""
    acknowledged container >/tmp/acknowledged
    expect "the acknowledged containers that are lost" "$(comm -13 /tmp/containers /tmp/acknowledged)" ""
    expect "what containerd has" "$(ctr --namespace k8s.io containers list --quiet | sort)" "$(cat /tmp/containers)"
    expect "what cricket doctor says" "$(cricket doctor)" "nothing is wrong"
    # Each in one call: starting crictl is most of the time that this takes.
    xargs -r crictl stopp </tmp/pods >/dev/null
    xargs -r crictl rmp </tmp/pods >/dev/null
    rm -f "$told".*
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
    run_pod "after-$boot" 'exec sleep 1000000'
    expect "the number of running containers" "$(running)" 1
    crictl rmp --force "$(crictl pods --quiet)" >/dev/null
fi
if [ -e /vm/last ] && [ "$boot" = "$(cat /vm/last)" ]; then
    cricket selftest
    nothing_failed
    exit
fi
for lane in 1 2 3; do
    load $lane &
done
say "the load runs"
wait -n
fail "the load ended by itself"
