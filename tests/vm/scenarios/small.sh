# A node with 256 MB of memory and no swap runs 40 pods: the kernel ends nothing for want of memory but the one container
# that asks for it.
. /vm/node.sh
pods=40
expect "the swap" "$(tail -n +2 /proc/swaps)" ""
install_node
import_busybox
until_true 120 "cricket answers" crictl info

# available: megabytes.
available() {
    awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo
}

say "$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' /proc/meminfo) MB in all, $(available) MB available before pods"
for ((n = 1; n <= pods; n++)); do
    run_pod "pod-$n" "exec sleep 1000000"
    [ $((n % 10)) != 0 ] || say "$n pods, $(available) MB available"
done
expect "the number of running containers" "$(running)" $pods
expect "the number of ready pods" "$(crictl pods --state ready --quiet | wc -l)" $pods

# What memory is whose: the proportional share of all processes of a name.
for process in /proc/[0-9]*; do
    # A kernel thread has none, nor a process that has just ended.
    if pss=$(awk '$1 == "Pss:" { print $2 }' "$process/smaps_rollup" 2>/dev/null) && [ -n "$pss" ]; then
        echo "$(tr -d ' ' <"$process/comm") $pss"
    fi
done | awk '{ count[$1]++; sum[$1] += $2; all += $2 }
    END { for (name in sum) printf "%7d kB  %3d x %s\n", sum[name], count[name], name
        printf "%7d kB  all processes\n", all }' | sort -rn >/vm/out/memory
head -12 /vm/out/memory

# said WHAT: of the greedy container, one line of its status.
said() {
    crictl inspect "$greedy" | sed -n "s/^ *\"$1\": \"\?\([^\",]*\)\"\?,/\1/p"
}
ended() {
    [ "$(said state)" = CONTAINER_EXITED ]
}
scope_gone() {
    [ ! -e "/sys/fs/cgroup/vm.slice/cri-containerd-$greedy.scope" ]
}
# hold_shim: of the greedy container, whose first process is pid.
hold_shim() {
    pid=$(head -1 "/sys/fs/cgroup/vm.slice/cri-containerd-$greedy.scope/cgroup.procs")
    shim=$(awk '$1 == "PPid:" { print $2 }' "/proc/$pid/status")
    kill -STOP "$shim"
}

LIMIT=$((16 << 20)) run_pod greedy "exec tail /dev/zero"
greedy=$(crictl ps --all --quiet --name main --pod "$(crictl pods --quiet --name greedy)")
until_true 120 "the greedy container has ended" ended
expect "its reason" "$(said reason)" OOMKilled

# systemd removes an empty scope, and the kernel's count with it, before a busy node's shim has looked.
LIMIT=$((16 << 20)) run_pod greedier "while [ ! -e /now ]; do sleep 0.2; done; exec tail /dev/zero"
greedy=$(crictl ps --all --quiet --name main --pod "$(crictl pods --quiet --name greedier)")
hold_shim
touch "/proc/$pid/root/now"
until_true 120 "systemd has removed the scope of container $greedy" scope_gone
kill -CONT "$shim"
until_true 120 "the second greedy container has ended" ended
expect "its reason" "$(said reason)" OOMKilled

# The same end at somebody else's hands is another matter.
LIMIT=$((16 << 20)) run_pod modest "exec sleep 1000000"
greedy=$(crictl ps --all --quiet --name main --pod "$(crictl pods --quiet --name modest)")
hold_shim
kill -KILL "$pid"
until_true 120 "systemd has removed the scope of container $greedy" scope_gone
kill -CONT "$shim"
until_true 120 "the modest container has ended" ended
expect "its reason" "$(said reason)" Error

killed=$(journalctl --boot --dmesg --output cat --no-pager | grep 'Killed process' || true)
expect "the number of processes killed for memory" "$(echo "$killed" | wc -l)" 2
expect "the number of those that were tail" "$(echo "$killed" | grep -c '(tail)')" 2

systemctl restart cricket
until_true 120 "cricket is back" crictl info
expect "the number of running containers after a restart" "$(running)" $pods
first=$(crictl ps --quiet --pod "$(crictl pods --quiet --name 'pod-1$')")
expect "what a command says" "$(crictl exec --sync "$first" echo hello)" hello
nothing_failed
say "$pods pods, $(available) MB available at the end"
