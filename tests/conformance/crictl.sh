# crictl's sessions with the node of run.sh, which sources this: exec, attach and port-forward over SPDY and over WebSocket,
# as a person at a node types them, and once more on TLS. A line for each, and a count at the end. Only for a test: pods have no log directory
# but $dir. MIB=n is how much goes through a command.
passed=0 failed=0 skipped=0
# What crictl needs for encrypted sessions, and what they are called.
tls=() over=

crictl() {
    "$bin/crictl" --config "$dir/crictl.yaml" "$@"
}

pass() {
    passed=$((passed + 1))
    echo "crictl: pass  $1"
}

# miss WHAT WHY: it is not as it should be.
miss() {
    failed=$((failed + 1))
    printf 'crictl: FAIL  %s\n%s\n' "$1" "$2" | sed '2,$s/^/    /'
}

# expect WHAT PATTERN STATUS COMMAND...: the command, fed from our stdin, ends with this status and all that it says matches.
expect() {
    local what=$1 pattern=$2 wanted=$3 said status=0
    shift 3
    said=$(timeout 60 "$@" 2>&1) || status=$?
    if [ $status = "$wanted" ] && [[ $said =~ $pattern ]]; then
        pass "$what"
    else
        miss "$what" "status $status, not $wanted, or not $pattern: $said"
    fi
}

# create NAME STDIN SCRIPT: a running container of the pod; prints its id.
create() {
    cat >"$dir/$1.json" <<JSON
{"metadata": {"name": "$1"}, "image": {"image": "$image"}, "log_path": "$1.log", "stdin": $2, "linux": {},
 "command": ["sh", "-c", "$3"]}
JSON
    id=$(crictl create "$pod" "$dir/$1.json" "$dir/pod.json")
    crictl start "$id" >/dev/null
    echo "$id"
}

# forward TRANSPORT PORT: a port of this machine, forwarded to the pod, answers twice at the same time.
forward() {
    local log=$report/crictl-forward-$1${over:+-tls}.log answers
    "$bin/crictl" --config "$dir/crictl.yaml" port-forward "${tls[@]}" --transport "$1" "$pod" "$2:80" >"$log" 2>&1 &
    local forwarder=$!
    for ((i = 0; i < 100; i++)); do
        grep -q 'Forwarding from' "$log" && break
        sleep 0.1
    done
    answers=$(for n in 1 2; do get "$2" & done; wait $(jobs -p | grep -vx $forwarder))
    kill $forwarder 2>/dev/null || true
    wait $forwarder 2>/dev/null || true
    if [ "$(grep -c 'HTTP/1.. 200' <<<"$answers")" = 2 ]; then
        pass "port-forward over $1$over: two requests at once"
    else
        miss "port-forward over $1$over: two requests at once" "$answers$(cat "$log")"
    fi
}

get() {
    (
        exec 3<>"/dev/tcp/127.0.0.1/$1"
        printf 'GET /index.html HTTP/1.0\r\n\r\n' >&3
        timeout 20 cat <&3
    ) 2>&1
}

sessions() {
    local transport=$1 port=$2 id
    local exec=("$bin/crictl" --config "$dir/crictl.yaml" exec "${tls[@]}" --transport "$transport")
    expect "exec over $transport$over: output" '^hello$' 0 "${exec[@]}" "$main" echo hello </dev/null
    expect "exec over $transport$over: errors and an exit code" 'oops.*exit code 7' 1 \
        "${exec[@]}" "$main" sh -c 'echo oops >&2; exit 7' </dev/null
    expect "exec -i over $transport$over: input and its end" '^ *3$' 0 "${exec[@]}" -i "$main" wc -l <<<$'a\nb\nc'
    expect "exec -i over $transport$over: ${MIB:-8} MiB there and back" "^$(sha256sum <"$dir/bytes")$" 0 \
        sh -c '"$0" "$@" <"$BYTES" | sha256sum' "${exec[@]}" -i "$main" cat
    if command -v script >/dev/null; then
        expect "exec -it over $transport$over: a terminal" '/dev/pts/' 0 \
            script -qec "$(printf '%q ' "${exec[@]}" -it "$main" tty)" /dev/null </dev/null
    else
        skipped=$((skipped + 1))
        echo "crictl: skip  exec -it over $transport$over: this machine has no \`script\` to give it a terminal"
    fi
    id=$(create "attach-$transport${over:+-tls}" true 'while read x; do echo got $x; [ $x = end ] && exit; done')
    expect "attach -i over $transport$over: input, output and the container's end" 'got one.*got end' 0 \
        "$bin/crictl" --config "$dir/crictl.yaml" attach "${tls[@]}" --transport "$transport" -i "$id" \
        < <(sleep 1; printf 'one\n'; sleep 1; printf 'end\n')
    forward "$transport" "$port"
}

# Gives the node a certificate of its own, which takes a restart; containers run on.
encrypt() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=node -addext \
        subjectAltName=DNS:localhost,IP:127.0.0.1 -keyout "$dir/key.pem" -out "$dir/cert.pem" 2>"$report/openssl.log" \
        || fail "openssl made no certificate: $(cat "$report/openssl.log")"
    printf '[streaming]\ntls_cert = "%s"\ntls_key = "%s"\n' "$dir/cert.pem" "$dir/key.pem" >>"$dir/cricket.toml"
    kill "${pids[-1]}"
    wait "${pids[-1]}" || fail "cricket ended with $?"
    unset 'pids[-1]'
    start "$report/cricket-tls.log" "$cricket" serve --config "$dir/cricket.toml"
    await "$report/cricket-tls.log" "$socket"
    for ((i = 0; i < 100; i++)); do
        crictl ps >/dev/null 2>&1 && break
        sleep 0.1
    done
    # It insists on a certificate of its own, for which nobody asks.
    tls=(--tls-ca "$dir/cert.pem" --tls-cert "$dir/cert.pem" --tls-key "$dir/key.pem") over=' and TLS'
}

crictl_sessions() {
    image=registry.k8s.io/e2e-test-images/busybox:1.29-2
    export BYTES=$dir/bytes
    head -c "${MIB:-8}M" /dev/urandom >"$BYTES"
    cat >"$dir/pod.json" <<JSON
{"metadata": {"name": "crictl", "namespace": "default", "uid": "crictl"}, "log_directory": "$dir", "linux": {}}
JSON
    crictl pull "$image" >/dev/null
    pod=$(crictl runp ${RUNTIME:+--runtime "$RUNTIME"} "$dir/pod.json")
    main=$(create main false 'mkdir -p /tmp/www; echo here >/tmp/www/index.html; httpd -p 80 -h /tmp/www; while :; do sleep 1000; done')
    sessions spdy 18080
    sessions websocket 18081
    if [ $subject = cricket ]; then
        encrypt
        sessions spdy 18082
        sessions websocket 18083
    else
        skipped=$((skipped + 1))
        echo "crictl: skip  sessions on TLS: they are for cricket's own certificate"
    fi
    crictl rmp --force "$pod" >/dev/null
    echo "$passed passed, $failed failed, $skipped skipped"
    [ $failed = 0 ]
}
