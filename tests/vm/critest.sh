# The whole of critest on this node, with the cgroup driver that is named in `driver`: sourced by scenarios. The registries
# that the suite names are mirrored to one on loopback.
. /vm/node.sh
mkdir -p /etc/cricket
echo "cgroup_driver = \"$driver\"" >/etc/cricket/config.toml
install_node

cat >/var/tmp/registry.yml <<'YAML'
version: 0.1
log: {level: warn, accesslog: {disabled: true}}
storage: {filesystem: {rootdirectory: /var/tmp/registry}}
http: {addr: "127.0.0.1:5000"}
YAML
docker-registry serve /var/tmp/registry.yml >/vm/out/registry.log 2>&1 &
until_true 30 "the registry listens" bash -c 'exec 3<>/dev/tcp/127.0.0.1/5000'
conform push /vm/images 127.0.0.1:5000
for host in registry.k8s.io k8s.gcr.io gcr.io; do
    mkdir -p "/etc/containerd/certs.d/$host"
    printf 'server = "http://127.0.0.1:5000"\n[host."http://127.0.0.1:5000"]\ncapabilities = ["pull", "resolve"]\n' \
        >"/etc/containerd/certs.d/$host/hosts.toml"
done
until_true 60 "cricket answers" crictl info
say "critest begins"

# critest NAME EXPRESSION: runs the specs that match; a report and a log.
run_critest() {
    local status=0
    critest -config /etc/crictl.yaml -runtime-endpoint unix:///run/cricket/cricket.sock -ginkgo.no-color -ginkgo.seed 1 \
        -ginkgo.junit-report "/vm/out/$1.xml" -ginkgo.focus "$2" -ginkgo.timeout 40m >"/vm/out/$1.log" 2>&1 || status=$?
    [ -f "/vm/out/$1.xml" ] || fail "critest ended with $status and no report"
}

reports=/vm/out/critest.xml
run_critest critest ""
say "critest has ended"
again=$(conform again $reports /vm/expected.txt)
if [ -n "$again" ]; then
    run_critest again "$again"
    reports+=,/vm/out/again.xml
fi
conform verdict $reports /vm/expected.txt
nothing_failed
