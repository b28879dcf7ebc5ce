#!/usr/bin/env bash
# Runs crictl's sessions and critest on a containerd and a cricket of their own, in network and IPC namespaces of their own,
# and judges the result of critest by the lists in expected/. Variables:
#   CONTAINERD=1.6|2   Debian's containerd, runc and plugins, or 2.x and its runc and plugins, built from Go modules
#   PEER=1             on containerd's own CRI plugin instead: what the peer reaches on this machine
#   RUNTIME=name       the runtime handler
#   SHIM=runc-v2       whose shim: auto (the default), cricket or runc-v2
#   ONLY=crictl|critest  one of the two
#   FOCUS=regexp       only these specs; SEED=n the order in which they run
# Report, log and the daemons' logs are left in target/conformance/<cricket or peer>-<containerd>.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
ring=conformance
. tests/conformance/node.sh
inside '' --net --ipc
start_node
. tests/conformance/crictl.sh
if [ "${ONLY:-crictl}" = crictl ]; then
    crictl_sessions || sessions_failed=1
    [ -z "${ONLY:-}" ] || exit ${sessions_failed:-0}
fi
echo "conformance: $("$bin/critest" -version 2>/dev/null | head -1)"

# critest REPORT EXPRESSION: runs the specs that match, and leaves a report and a log.
critest() {
    local status=0
    "$bin/critest" -config "$dir/crictl.yaml" -runtime-endpoint "unix://$socket" -runtime-handler "${RUNTIME:-}" \
        -ginkgo.no-color -ginkgo.junit-report "$report/$1.xml" -ginkgo.seed "${SEED:-1}" -ginkgo.focus "$2" \
        -ginkgo.timeout 30m >"$report/$1.log" 2>&1 || status=$?
    [ -f "$report/$1.xml" ] || { tail -50 "$report/$1.log"; fail "critest ended with $status and no report"; }
}

reports=$report/critest.xml
lists=("$here/expected/cricket.txt" "$here/expected/cricket-$generation.txt")
critest critest "${FOCUS:-}"
if [ $subject = peer ]; then
    # Nobody expects anything of it: its figures, whatever they are.
    "$bin/conform" verdict "$reports" || exit 0
    exit 0
fi
again=$("$bin/conform" again "$report/critest.xml" "${lists[@]}")
if [ -n "$again" ]; then
    critest again "$again"
    reports+=,$report/again.xml
fi
"$bin/conform" verdict "$reports" "${lists[@]}"
exit ${sessions_failed:-0}
