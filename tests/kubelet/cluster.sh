# The rest of a cluster on the same node, for run.sh: sourced. etcd, an API server that believes everybody, a controller
# manager and a scheduler, all on loopback. Sets $cluster, the file for who wants to talk to the API server.

# A node must not have a loopback address.
node_ip=10.217.0.1
ip link add ring0 type bridge
ip address add $node_ip/24 dev ring0
ip link set ring0 up

pki=$dir/cluster
cluster=$pki/admin.conf
mkdir -p "$pki"
openssl genrsa -out "$pki/accounts.key" 2048 2>/dev/null
echo 'ring,admin,admin,system:masters' >"$pki/tokens.csv"
cat >"$cluster" <<YAML
{apiVersion: v1, kind: Config, current-context: ring,
 clusters: [{name: ring, cluster: {server: "https://127.0.0.1:6443", insecure-skip-tls-verify: true}}],
 users: [{name: ring, user: {token: ring}}], contexts: [{name: ring, context: {cluster: ring, user: ring, namespace: default}}]}
YAML

# answers WHAT COMMAND...: within a minute.
answers() {
    local what=$1
    shift
    for ((i = 0; i < 300; i++)); do
        "$@" >"$report/$what.answer" 2>&1 && return
        sleep 0.2
    done
    tail -5 "$report/$what.log"
    fail "$what does not answer: $(cat "$report/$what.answer")"
}

start "$report/etcd.log" etcd --data-dir "$dir/etcd" --listen-client-urls http://127.0.0.1:2379 \
    --advertise-client-urls http://127.0.0.1:2379 --listen-peer-urls http://127.0.0.1:2380
start "$report/kube-apiserver.log" "$bin/kube-apiserver" --etcd-servers http://127.0.0.1:2379 --cert-dir "$pki" \
    --bind-address 127.0.0.1 --advertise-address $node_ip --authorization-mode AlwaysAllow --token-auth-file "$pki/tokens.csv" \
    --service-account-issuer https://ring.test --service-account-key-file "$pki/accounts.key" --allow-privileged \
    --service-account-signing-key-file "$pki/accounts.key" --service-cluster-ip-range 10.218.0.0/24 \
    --kubelet-preferred-address-types InternalIP
answers kube-apiserver "$bin/kubectl" --kubeconfig "$cluster" get --raw /readyz
start "$report/kube-controller-manager.log" "$bin/kube-controller-manager" --kubeconfig "$cluster" --leader-elect=false \
    --bind-address 127.0.0.1 --service-account-private-key-file "$pki/accounts.key" --root-ca-file "$pki/apiserver.crt"
start "$report/kube-scheduler.log" "$bin/kube-scheduler" --kubeconfig "$cluster" --leader-elect=false --bind-address 127.0.0.1
answers kube-controller-manager "$bin/kubectl" --kubeconfig "$cluster" get serviceaccount default
