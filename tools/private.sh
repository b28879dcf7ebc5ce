# For scripts that start daemons of their own in a directory of their own, $dir: sourced. Whatever they started is ended
# and taken away at their end, also when they are interrupted.

pids=()

# Containers, shims, daemons, mounts, links, files, in the order in which they hold each other. A script that has more to
# take away, such as a bridge, defines `clean_up_more`.
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
    clean_up_more
    rm -rf --one-file-system "$dir"
}

clean_up_more() {
    :
}

# start LOG COMMAND...: a daemon, in the background.
start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 &
    pids+=($!)
}

# await LOG SOCKET: the daemon that was started last serves; one that ended shows its log.
await() {
    for ((i = 0; i < 300; i++)); do
        [ -S "$2" ] && return
        kill -0 "${pids[-1]}" 2>/dev/null || break
        sleep 0.1
    done
    cat "$1"
    echo "$(basename "$0"): no $2" >&2
    exit 1
}

trap clean_up EXIT
trap 'exit 130' INT TERM
