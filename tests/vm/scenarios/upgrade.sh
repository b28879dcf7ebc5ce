# `systemctl restart cricket` with another build of it, again and again, while pods come and go: what runs does not notice,
# what is asked meanwhile is done in the end, and nothing is left.
. /vm/node.sh
restarts=12

# A kubelet's patience: under emulation a start takes its time.
crictl() {
    command crictl --timeout 120s "$@"
}

# again COMMAND...: until it succeeds, as a kubelet does.
again() {
    for ((try = 0; try < 240; try++)); do
        "$@" 2>>/tmp/refused && return
        sleep 0.25
    done
    tail -3 /tmp/refused
    fail "refused for a minute: $*"
}

# load LANE: pods come and go, until there is /tmp/enough.
load() {
    local n pod container
    for ((n = 1; ; n++)); do
        [ ! -e /tmp/enough ] || break
        pod_files "come-$1-$n" 'exec sleep 1000000'
        pod=$(again crictl runp "$dir/pod.json")
        container=$(again crictl create --no-pull "$pod" "$dir/container.json" "$dir/pod.json")
        # Without an answer it may be running all the same.
        until crictl start "$container" >/dev/null 2>>/tmp/refused; do
            state=$(again crictl inspect --output go-template --template '{{.status.state}}' "$container")
            [ "$state" != CONTAINER_RUNNING ] || break
            expect "the container that did not start" "$state" CONTAINER_CREATED
            sleep 0.25
        done
        again crictl stopp "$pod" >/dev/null
        again crictl rmp "$pod" >/dev/null
        echo "$n" >"/tmp/made.$1"
    done
}

# known POD: what must not change, of the pod and its container.
known() {
    local template='{{.status.id}} {{.status.createdAt}} {{.status.startedAt}} {{.status.state}} {{.info.pid}}'
    again crictl inspect --output go-template --template "$template" \
        "$(again crictl ps --all --quiet --pod "$1")"
    again crictl inspectp --output go-template \
        --template '{{.status.id}} {{.status.createdAt}} {{.status.state}} {{.status.network.ip}}' "$1"
}

install_node
import_busybox
until_true 120 "cricket answers" crictl info
install -m 0755 /vm/cricket /tmp/build.0
# Another one as far as anybody can tell from its bytes.
{ cat /vm/cricket && echo another build; } >/tmp/build.1
for name in one two three; do
    run_pod "stays-$name" 'i=0; while :; do i=$((i + 1)); echo line $i; sleep 0.05; done'
done
crictl pods --quiet --no-trunc | sort >/tmp/pods
while read -r pod; do known "$pod"; done </tmp/pods >/tmp/before
for lane in 1 2; do
    load $lane &
done
for ((restart = 1; restart <= restarts; restart++)); do
    sleep "$((RANDOM % 3)).$((RANDOM % 10))"
    install -m 0755 "/tmp/build.$((restart % 2))" /usr/local/bin/cricket
    systemctl restart cricket
    expect "what systemd says of it" "$(systemctl is-active cricket)" active
done
touch /tmp/enough
wait
say "$(cat /tmp/made.1) and $(cat /tmp/made.2) pods came and went; $(wc -l </tmp/refused) lines of refusals meanwhile"
while read -r pod; do known "$pod"; done </tmp/pods >/tmp/after
diff /tmp/before /tmp/after || fail "what stays has changed"
expect "the pods" "$(crictl pods --quiet --no-trunc | sort)" "$(cat /tmp/pods)"
while read -r pod; do
    container=$(crictl ps --quiet --pod "$pod")
    expect "exec" "$(crictl exec --sync "$container" echo here)" here
    crictl stopp "$pod" >/dev/null
    crictl rmp "$pod" >/dev/null
done </tmp/pods
for name in one two three; do
    awk '$5 != "" && ($3 != "F" || $4 != "line" || $5 != ++n) { bad = 1; print NR ": " $0 } END { exit bad || n < 100 }' \
        "/var/log/pods/vm_stays-${name}_uid-stays-$name/main_0.log" || fail "the log of $name has not every line once"
done
expect "what cricket doctor says" "$(cricket doctor)" "nothing is wrong"
for place in /var/lib/cricket/sandboxes /var/lib/cricket/containers /run/cricket/sandboxes /run/netns; do
    expect "$place" "$(ls "$place" 2>/dev/null)" ""
done
cricket selftest
nothing_failed
