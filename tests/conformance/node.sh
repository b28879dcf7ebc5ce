# A node of a ring's own, for the scripts that put a client before it: sourced with $ring, the name of their directory. Sets
# $generation, $subject (cricket or peer), $bin and $report by the variables CONTAINERD and PEER; `inside` goes into
# namespaces of the ring's own, and `start_node` starts there a registry with every image, on loopback, a containerd, and the
# subject, which answers at $socket.
generation=${CONTAINERD:-1.6}
subject=cricket
[ "${PEER:-}" = 1 ] && subject=peer
bin=$PWD/target/conformance/bin
report=$PWD/target/$ring/$subject-$generation

fail() {
    echo "$ring: $*" >&2
    exit 1
}

# inside "MODULE..." FLAG...: builds the modules and what the node needs of them, and runs the script again in new
# namespaces; inside, it returns with an empty $report.
inside() {
    local modules=$1
    shift
    if [ -z "${RING_INSIDE:-}" ]; then
        [ "$(id -u)" = 0 ] || fail "containers need root: become root (sudo -s) and run it again"
        case $generation in
            1.6) ;;
            2) modules+=' containerd runc cni' ;;
            *) fail "CONTAINERD=$generation: 1.6 or 2" ;;
        esac
        tests/conformance/build.sh conform critest crictl $modules
        RING_INSIDE=1 exec unshare "$@" "$0"
    fi
    rm -rf "$report"
    mkdir -p "$report"
}

# registry NAME PORT [LINE]: serves the images on loopback, with one more line of configuration.
registry() {
    cat >"$dir/$1.yml" <<YAML
version: 0.1
log: {level: info, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: $dir/registry}}
http: {addr: "127.0.0.1:$2"}
${3:-}
YAML
    start "$report/$1.log" docker-registry serve "$dir/$1.yml"
    for ((i = 0; i < 100; i++)); do
        grep -q 'listening on' "$report/$1.log" && break
        sleep 0.1
    done
}

start_node() {
    plugins=/usr/lib/cni
    if [ "$generation" = 2 ]; then
        export PATH=$bin/c2:$PATH
        plugins=$bin/c2/cni
    fi
    command -v containerd >/dev/null || fail "containerd is missing: apt-get install containerd runc"
    command -v docker-registry >/dev/null || fail "docker-registry is missing: apt-get install docker-registry"
    [ -x "$plugins/bridge" ] || fail "CNI plugins are missing: apt-get install containernetworking-plugins"
    [ $subject = peer ] || cricket=$(realpath "${CRICKET_BIN:-$PRODUCT}")

    dir=$(mktemp -d "/tmp/cricket-$ring.XXXXXX")
    # Root of a user namespace must get through, down to the bundles.
    chmod 711 "$dir"
    mkdir -m 711 "$dir/containerd"
    . tools/private.sh
    mkdir -p "$dir/net.d" "$dir/certs.d"
    ip link set lo up

    cat >"$dir/net.d/10-conformance.conflist" <<JSON
{"cniVersion": "0.4.0", "name": "conformance", "plugins": [
  {"type": "bridge", "bridge": "conformance", "isGateway": true, "ipMasq": true, "ipam": {"type": "host-local",
   "dataDir": "$dir/ipam", "ranges": [[{"subnet": "10.215.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}]}
JSON

    # The images, on loopback; every registry that the suite names is mirrored there.
    registry registry 5000
    "$bin/conform" push target/conformance/images 127.0.0.1:5000
    for host in registry.k8s.io k8s.gcr.io gcr.io public.ecr.aws; do
        mkdir "$dir/certs.d/$host"
        printf 'server = "http://127.0.0.1:5000"\n[host."http://127.0.0.1:5000"]\ncapabilities = ["pull", "resolve"]\n' \
            >"$dir/certs.d/$host/hosts.toml"
    done

    . tests/conformance/configs.sh
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
    echo "$ring: $subject on $(containerd --version | cut -d' ' -f1,3), all of it below $dir"
    printf 'runtime-endpoint: unix://%s\nimage-endpoint: unix://%s\n' "$socket" "$socket" >"$dir/crictl.yaml"
    # A socket is not an answer yet.
    for ((i = 0; i < 300; i++)); do
        "$bin/crictl" --config "$dir/crictl.yaml" info >"$report/info.log" 2>&1 && break
        [ $i -lt 299 ] || { cat "$report/info.log"; fail "$subject does not get ready"; }
        sleep 0.1
    done
}
