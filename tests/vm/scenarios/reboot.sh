# An orderly reboot with running pods: they end in time and hold nothing up; after it they are what a kubelet expects to
# find, can be stopped and removed, and new ones start.
. /vm/node.sh

if [ "$1" = 1 ]; then
    install_node
    import_busybox
    until_true 120 "cricket answers" crictl info
    # One that ends when it is told to and takes its time, one that does not, and one whose sandbox has a process that holds
    # its PID namespace.
    obedient="trap 'echo told to end; sleep 2; echo in its own time; exit 0' TERM; sleep 1000000 & wait"
    GRACE=30 run_pod obeys "$obedient"
    GRACE=3 run_pod ignores 'exec sleep 1000000'
    GRACE=30 PID=0 run_pod shares "$obedient"
    expect "the number of running containers" "$(running)" 3
    say "reboot"
    exit 100
fi

# What systemd had to say while it stopped everything: only the one that minds no signal had to be killed.
journalctl --boot -1 --no-pager --output cat --identifier systemd >/vm/out/shutdown
grep -F 'timed out' /vm/out/shutdown || fail "the container that ignores its signal was not killed when its grace was over"
expect "the number of units that did not stop in time" "$(grep -cF 'timed out' /vm/out/shutdown)" 1
killed=$(sed -n 's/.*scope: Killing process [0-9]* (\(.*\)) with signal SIGKILL.*/\1/p' /vm/out/shutdown)
expect "what was killed" "$killed" sleep
for pod in obeys shares; do
    grep -q 'in its own time' "/var/log/pods/vm_${pod}_uid-$pod/main_0.log" || fail "$pod was not told to end, or cut short"
done

until_true 120 "cricket answers" crictl info
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
