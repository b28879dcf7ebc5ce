#!/usr/bin/env bash
# Twenty pods under a real kubelet, before cricket and before containerd's own CRI plugin in turn: the table of what both
# took, each the median of its rounds, and their ratio. CONTAINERD=1.6|2 and ROUNDS=n, as run.sh.
set -eu -o pipefail
here=$(cd "$(dirname "$0")" && pwd)
generation=${CONTAINERD:-1.6}
out=$here/../../target/kubelet/bench-$generation
rm -rf "$out"
mkdir -p "$out"
for ((round = 1; round <= ${ROUNDS:-3}; round++)); do
    for subject in cricket peer; do
        peer=
        [ $subject = peer ] && peer=1
        RING_BENCH=1 PEER=$peer ONLY='^TestBenchmark$' "$here/run.sh" >"$out/log" 2>&1 || { cat "$out/log"; exit 1; }
        cp "$here/../../target/kubelet/$subject-$generation/bench.json" "$out/$subject-$round.json"
    done
done
python3 - "$out" "$generation" <<'PY' | tee "$out/table.md"
import glob, json, statistics, sys

out, generation = sys.argv[1:]
runs = {who: [json.load(open(path)) for path in glob.glob(f"{out}/{who}-*.json")] for who in ("cricket", "peer")}
rows = [("Start", "20 pods from manifests to all Ready (s)"), ("Delete", "20 pods deleted (s)"),
        ("CPU", "CPU of the runtime's processes at rest with 20 pods (ms/s)"),
        ("EmptyMemory", "PSS of the runtime's processes without a pod (MiB)"), ("MemoryPerPod", "PSS that a pod adds (MiB)")]
print(f"| under a kubelet, containerd {generation}, median of {len(runs['cricket'])} | cricket | containerd's CRI | ratio |\n|---|---|---|---|")
for who in runs:
    for run in runs[who]:
        run["CPU"] = sum(run["CPU"].values())
for key, what in rows:
    ours, theirs = (statistics.median(run[key] for run in runs[who]) for who in ("cricket", "peer"))
    print(f"| {what} | {ours:.2f} | {theirs:.2f} | {ours / theirs:.2f} |")
PY
