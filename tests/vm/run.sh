#!/usr/bin/env bash
# Boots a whole node in a virtual machine under software emulation for each scenario of tests/vm/scenarios, without any
# network, and judges it. The machine is of TARGET's architecture. ONLY=name,name takes some of the scenarios. What a machine
# said and wrote is in target/vm/<scenario>: the console, the journal as it came out of its own terminal, our logs. CUTS=n is
# how often the power goes in power-cut, SEED=n when; NODE_TESTS="name name" which tests of tests/node run in node.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
cricket=$(realpath "${CRICKET_BIN:-$PRODUCT}")
only=${ONLY:-selftest,small,node,reboot,upgrade,power-cut}

fail() {
    echo "vm: $*" >&2
    exit 1
}

. "$here/architecture.sh"
# Where tests/conformance/build.sh puts programs; of this architecture, if it is another one.
bin=target/conformance/bin
if [ -n "$foreign" ]; then
    export GOARCH=$architecture
    bin+=-$architecture
fi
for tool in "${qemu[0]}" debootstrap mke2fs e2fsck debugfs; do
    command -v "$tool" >/dev/null || fail "$tool is missing: as root, tools/setup.sh vm"
done
[ "$(id -u)" = 0 ] || fail "debootstrap needs root: become root (sudo -s) and run it again"
for name in ${only//,/ }; do
    [ -f "$here/scenarios/$name.sh" ] ||
        fail "no scenario $name; there are: $(cd "$here/scenarios" && echo *.sh | sed 's/\.sh//g')"
    case $name in critest-*) [ -z "$foreign" ] || fail "$name: its images are of this machine's architecture" ;; esac
done
mkdir -p "$out"
exec 9>"$out/lock"
flock --nonblock 9 || fail "another run is in $out"
rm -rf "$out"/work.*
"$here/disk.sh"
free=$(df --output=avail -m "$out" | tail -1)
[ "$free" -ge 2000 ] || fail "$((free)) MB are free in $out, a machine takes 2000: make room"

running=
work=$(mktemp -d "$out/work.XXXXXX")
clean_up() {
    trap '' INT TERM
    if [ -n "$running" ]; then
        kill "$running" && wait "$running" || true
    fi
    rm -rf "$work"
}
trap clean_up EXIT
trap 'exit 130' INT TERM

# What a scenario wants: megabytes of memory, seconds for each boot, boots, how many of them end by a power cut, and what it
# needs besides the product.
machine() {
    memory=1024 seconds=400 boots=1 cuts=0 programs=
    case $1 in
    small) memory=256 seconds=900 programs=crictl ;;
    reboot) boots=2 seconds=400 programs=crictl ;;
    upgrade) seconds=600 programs=crictl ;;
    power-cut) cuts=${CUTS:-10} boots=$((cuts + 1)) programs=vm-client ;;
    node) seconds=2400 programs=node-tests ;;
    critest-*) memory=2048 seconds=2400 programs="conform critest crictl" ;;
    esac
    seconds=$((seconds * slowness))
}

# build PROGRAM: where the payload finds it.
build() {
    mkdir -p "$bin"
    case $1 in
    vm-client) ours "$1" build --example vm-client ;;
    node-tests) ours "$1" test --no-run --test node ;;
    *) tests/conformance/build.sh "$1" ;;
    esac
}

# ours PROGRAM COMMAND...: what cargo makes of its last argument, a target of ours.
ours() {
    local target=${*: -1} built
    built=$(
        . tools/profile.sh
        cargo-zigbuild "$2" --release $FLAGS --message-format=json-render-diagnostics "${@:3}" |
            sed -n "/\"name\":\"$target\"/s/.*\"executable\":\"\([^\"]*\)\".*/\1/p"
    )
    [ -n "$built" ] && cp "$built" "$bin/$1"
}

# payload NAME: the second disk, with what the scenario needs and a place for its results.
payload() {
    local tree=$work/vm
    rm -rf "$tree"
    mkdir -p "$tree/out" "$tree/bin"
    cp "$here/begin.sh" "$tree/begin"
    cp "$here/node.sh" "$here/critest.sh" "$here/expected.txt" "$tree/"
    cp "$here/scenarios/$1.sh" "$tree/scenario.sh"
    cp -r dist "$tree/dist"
    cp "$cricket" "$tree/cricket"
    echo "$boots" >"$tree/last"
    echo "${NODE_TESTS:-metrics:: stats::}" >"$tree/node-tests"
    for program in $programs; do
        cp "$bin/$program" "$tree/bin/"
    done
    case $programs in *critest*) cp -r target/conformance/images "$tree/" ;; esac
    mke2fs -q -t ext4 -d "$tree" "$work/payload.img" 1G >/dev/null
}

# results NAME: what the scenario wrote, so far; a machine that was ended leaves the journal of its file system.
results() {
    e2fsck -p "$work/payload.img" >/dev/null 2>&1 || true
    debugfs -R "rdump /out $work" "$work/payload.img" 2>/dev/null
    cp -r "$work/out/." "$out/$1/"
    rm -r "$work/out"
}

# cut: ends the machine between two of its instructions, once its console says that there is something to lose. What it has
# not given to its disk is lost.
cut() {
    local wait
    for ((i = 0; i < seconds * 5; i++)); do
        kill -0 "$running" 2>/dev/null || return 0
        if grep -qa 'the load runs' "$work/console" 2>/dev/null; then
            wait=$((RANDOM % 15000))
            sleep "$((wait / 1000)).$(printf %03d $((wait % 1000)))"
            pkill -KILL -P "$running" || true
            return
        fi
        sleep 0.2
    done
}

# boot NAME [cut]: once, until the machine is off; ends it if that takes too long.
boot() {
    local status=0
    : >"$work/console"
    ports "$work/console" "$work/journal"
    timeout --kill-after=5 "$seconds" "${qemu[@]}" -accel tcg,thread=multi -smp 2 -m $memory \
        -display none -monitor none -nic none -no-reboot -kernel "$out/vmlinuz" -initrd "$out/initrd" \
        -append "root=/dev/vda rw console=$console quiet apparmor=1 security=apparmor panic=-1" \
        -drive "file=$work/disk.img,if=virtio,format=raw,cache=unsafe" \
        -drive "file=$work/payload.img,if=virtio,format=raw,cache=unsafe" \
        "${ports[@]}" </dev/null >>"$out/$1/qemu.log" 2>&1 &
    running=$!
    [ -z "${2:-}" ] || cut
    # Not in the foreground, where an interrupt would wait for it.
    wait "$running" 2>/dev/null || status=$?
    running=
    [ $status != 124 ] || echo "vm: $1: the machine was not off after $seconds s"
    cat "$work/console" >>"$out/$1/console"
    cat "$work/journal" >>"$out/$1/journal"
}

# scenario NAME: its verdict.
scenario() {
    machine "$1"
    for program in $programs; do
        build "$program" || return
    done
    rm -rf "${out:?}/$1"
    mkdir -p "$out/$1"
    cp --sparse=always "$out/base.img" "$work/disk.img"
    payload "$1"
    for ((n = 0; n < boots; n++)); do
        if [ $n -lt "$cuts" ]; then
            boot "$1" cut
            # 1: the journal was replayed.
            e2fsck -fp "$work/disk.img" >>"$out/$1/fsck" 2>&1 || [ $? = 1 ] || {
                echo "failed: the file system is damaged" >"$out/$1/verdict"
                tail -5 "$out/$1/fsck"
                return 1
            }
        else
            boot "$1"
        fi
        results "$1"
        [ ! -f "$out/$1/verdict" ] || break
    done
    # systemd's last process says so if somebody holds up the end.
    if grep -a 'Waiting for process' "$out/$1/console"; then
        echo "failed: a shutdown was held up" >"$out/$1/verdict"
    fi
    [ "$(cat "$out/$1/verdict" 2>/dev/null)" = passed ]
}

RANDOM=${SEED:=$$}
case ,$only, in *,power-cut,*) echo "vm: SEED=$SEED" ;; esac
passed=0 failed=0
for name in ${only//,/ }; do
    begun=$SECONDS
    if scenario "$name"; then
        passed=$((passed + 1))
        echo "vm: $name passed in $((SECONDS - begun)) s"
    else
        failed=$((failed + 1))
        tr -d '\r' <"$out/$name/console" | tail -20
        echo "vm: $name FAILED after $((SECONDS - begun)) s: see $out/$name"
    fi
done
echo "$passed passed, $failed failed, 0 skipped"
[ $failed = 0 ]
