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
    pss=$(awk '$1 == "Pss:" { print $2 }' "$process/smaps_rollup" 2>/dev/null) && [ -n "$pss" ] &&
        echo "$(tr -d ' ' <"$process/comm") $pss"
done | awk '{ count[$1]++; sum[$1] += $2; all += $2 }
    END { for (name in sum) printf "%7d kB  %3d x %s\n", sum[name], count[name], name
        printf "%7d kB  all processes\n", all }' | sort -rn >/vm/out/memory
head -12 /vm/out/memory

LIMIT=$((16 << 20)) run_pod greedy "exec tail /dev/zero"
greedy=$(crictl ps --all --quiet --name main --pod "$(crictl pods --quiet --name greedy)")
ended() {
    [ "$(crictl inspect "$greedy" | sed -n 's/^ *"state": "\(.*\)",/\1/p')" = CONTAINER_EXITED ]
}
until_true 120 "the greedy container has ended" ended
expect "its reason" "$(crictl inspect "$greedy" | sed -n 's/^ *"reason": "\(.*\)",/\1/p')" OOMKilled
killed=$(journalctl --boot --dmesg --output cat --no-pager | grep -c 'Killed process' || true)
expect "the number of processes killed for memory" "$killed" 1
journalctl --boot --dmesg --output cat --no-pager | grep 'Killed process' | grep -q '(tail)' || fail "it was not tail"

systemctl restart cricket
until_true 120 "cricket is back" crictl info
expect "the number of running containers after a restart" "$(running)" $pods
first=$(crictl ps --quiet --pod "$(crictl pods --quiet --name 'pod-1$')")
expect "what a command says" "$(crictl exec --sync "$first" echo hello)" hello
nothing_failed
say "$pods pods, $(available) MB available at the end"
