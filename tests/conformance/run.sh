#!/usr/bin/env bash
# Runs critest on a containerd and a cricket of their own, in network and IPC namespaces of their own, and judges the
# result by the lists in expected/. Variables:
#   CONTAINERD=1.6|2   Debian's containerd, runc and plugins, or 2.x and its runc and plugins, built from Go modules
#   PEER=1             on containerd's own CRI plugin instead: what the peer reaches on this machine
#   RUNTIME=name       the runtime handler
#   SHIM=runc-v2       whose shim: auto (the default), cricket or runc-v2
#   FOCUS=regexp       only these specs; SEED=n the order in which they run
# Report, log and the daemons' logs are left in target/conformance/<cricket or peer>-<containerd>.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
generation=${CONTAINERD:-1.6}
subject=cricket
[ "${PEER:-}" = 1 ] && subject=peer
bin=$PWD/target/conformance/bin
report=$PWD/target/conformance/$subject-$generation

fail() {
    echo "conformance: $*" >&2
    exit 1
}

if [ -z "${CONFORMANCE_INSIDE:-}" ]; then
    [ "$(id -u)" = 0 ] || fail "containers need root: become root (sudo -s) and run it again"
    case $generation in
        1.6) "$here/build.sh" conform critest crictl ;;
        2) "$here/build.sh" conform critest crictl containerd runc cni ;;
        *) fail "CONTAINERD=$generation: 1.6 or 2" ;;
    esac
    # Its ports, links and rules meet those of nobody else, and end with it; segments of shared memory too.
    CONFORMANCE_INSIDE=1 exec unshare --net --ipc "$0"
fi

plugins=/usr/lib/cni
if [ "$generation" = 2 ]; then
    export PATH=$bin/c2:$PATH
    plugins=$bin/c2/cni
fi
command -v containerd >/dev/null || fail "containerd is missing: apt-get install containerd runc"
command -v docker-registry >/dev/null || fail "docker-registry is missing: apt-get install docker-registry"
[ -x "$plugins/bridge" ] || fail "CNI plugins are missing: apt-get install containernetworking-plugins"
[ $subject = peer ] || cricket=$(realpath "${CRICKET_BIN:-$PRODUCT}")

dir=$(mktemp -d /tmp/cricket-conformance.XXXXXX)
# Root of a user namespace must get through, down to the bundles.
chmod 711 "$dir"
mkdir -m 711 "$dir/containerd"
. tools/private.sh
rm -rf "$report"
mkdir -p "$report" "$dir/net.d" "$dir/certs.d"
ip link set lo up

cat >"$dir/net.d/10-conformance.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "conformance", "plugins": [
  {"type": "bridge", "bridge": "conformance", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local",
   "dataDir": "$dir/ipam", "ranges": [[{"subnet": "10.215.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON

# The images, on loopback; every registry that the suite names is mirrored there.
cat >"$dir/registry.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "127.0.0.1:5000"}
YAML
start "$report/registry.log" docker-registry serve "$dir/registry.yml"
for ((i = 0; i < 100; i++)); do
    grep -q 'listening on' "$report/registry.log" && break
    sleep 0.1
done
"$bin/conform" push target/conformance/images 127.0.0.1:5000
for host in registry.k8s.io k8s.gcr.io gcr.io public.ecr.aws; do
    mkdir "$dir/certs.d/$host"
    printf 'server = "http://127.0.0.1:5000"\n[host."http://127.0.0.1:5000"]\ncapabilities = ["pull", "resolve"]\n' \
        >"$dir/certs.d/$host/hosts.toml"
done

. "$here/configs.sh"
"${subject}_config_$generation" >"$dir/containerd.toml"
start "$report/containerd.log" containerd --config "$dir/containerd.toml"
await "$report/containerd.log" "$dir/containerd.sock"
socket=$dir/containerd.sock
if [ $subject = cricket ]; then
    cricket_config >"$dir/cricket.toml"
    start "$report/cricket.log" "$cricket" serve --config "$dir/cricket.toml"
    socket=$dir/cricket.sock
    await "$report/cricket.log" "$socket"
fi
echo "conformance: $("$bin/critest" -version 2>/dev/null | head -1) on $subject, $(containerd --version | cut -d' ' -f1,3)," \
    "all of it below $dir"
printf 'runtime-endpoint: unix://%s\nimage-endpoint: unix://%s\n' "$socket" "$socket" >"$dir/crictl.yaml"
# A socket is not an answer yet.
for ((i = 0; i < 300; i++)); do
    "$bin/crictl" --config "$dir/crictl.yaml" info >"$report/info.log" 2>&1 && break
    [ $i -lt 299 ] || { cat "$report/info.log"; fail "$subject does not get ready"; }
    sleep 0.1
done

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
