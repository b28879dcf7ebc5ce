# An orderly reboot with running pods: they end in time and hold nothing up; after it they are what a kubelet expects to
# find, can be stopped and removed, and new ones start.
. /vm/node.sh

if [ "$1" = 1 ]; then
    install_node
    import_busybox
    until_true 30 "cricket answers" crictl info
    # One that ends when it is told to, one that does not, and one with a process of its sandbox.
    run_pod obeys 'trap "echo told to end; exit 0" TERM; sleep 1000000 & wait'
    run_pod ignores 'exec sleep 1000000'
    PID=0 run_pod shares 'exec sleep 1000000'
    expect "the number of running containers" "$(running)" 3
    say "reboot"
    exit 100
fi

# What systemd had to say while it stopped everything.
journalctl --boot -1 --no-pager --output short-monotonic >/vm/out/journal-before
for sign in 'timed out' 'Killing process' 'SIGKILL' 'Failed with result'; do
    grep -F "$sign" /vm/out/journal-before && fail "\"$sign\" before the reboot"
done
grep -q 'told to end' /var/log/pods/vm_obeys_uid-obeys/main_0.log || fail "the container was not told to end"

until_true 60 "cricket answers" crictl info
expect "the number of running containers" "$(running)" 0
expect "the number of ready pods" "$(crictl pods --state ready --quiet | wc -l)" 0
expect "the number of pods" "$(crictl pods --quiet | wc -l)" 3
expect "the number of exited containers" "$(crictl ps --all --state exited --quiet | wc -l)" 3
for pod in $(crictl pods --quiet); do
    crictl stopp "$pod"
    crictl stopp "$pod"
    crictl rmp "$pod"
done
expect "the pods" "$(crictl pods --quiet)" ""
expect "the containers" "$(crictl ps --all --quiet)" ""
for dir in /var/lib/cricket/sandboxes /var/lib/cricket/containers /run/cricket/sandboxes /run/netns; do
    expect "$dir" "$(ls "$dir" 2>/dev/null)" ""
done
expect "the network's addresses in use" "$(ls /var/lib/cni/networks/node | grep -c '^10\.')" 0

run_pod again 'echo back; exec sleep 1000000'
expect "the number of running containers" "$(running)" 1
cricket selftest
nothing_failed
