package kubelet

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// summary is what the kubelet knows of a pod.
func (p *pod) summary() *stats.PodStats {
	body, err := get("/stats/summary")
	var all stats.Summary
	if err != nil || json.Unmarshal([]byte(body), &all) != nil {
		return nil
	}
	for _, found := range all.Pods {
		if found.PodRef.Name == p.full() {
			return &found
		}
	}
	return nil
}

// what a pod does that its statistics must show: 3 s of CPU, however long that takes, 32 MiB of memory held, 16 MiB written to its root.
const busy = `
volumes: [{name: memory, emptyDir: {medium: Memory}}]
containers:
- {name: main, image: $BUSYBOX, volumeMounts: [{name: memory, mountPath: /memory}],
   command: [sh, -c, "dd if=/dev/urandom of=/memory/x bs=1M count=32; dd if=/dev/zero of=/written bs=1M count=16; sync;
   (ulimit -t 3; while :; do :; done); touch /done; exec sleep 1000"],
   readinessProbe: {exec: {command: [cat, /done]}, periodSeconds: 1}}
`

// measured is that pod once it has done all of it, with the network's share or without.
func measured(t *testing.T, name string, network bool) {
	t.Helper()
	p := running(t, name, busy)
	var last *stats.PodStats
	whole := func() bool {
		last = p.summary()
		if last == nil || len(last.Containers) != 1 {
			return false
		}
		main := last.Containers[0]
		return main.CPU != nil && main.CPU.UsageCoreNanoSeconds != nil && *main.CPU.UsageCoreNanoSeconds > 2_500_000_000 &&
			main.Memory != nil && main.Memory.WorkingSetBytes != nil && *main.Memory.WorkingSetBytes > 32<<20 &&
			main.Rootfs != nil && main.Rootfs.UsedBytes != nil && *main.Rootfs.UsedBytes > 16<<20 &&
			(last.Network != nil && last.Network.RxBytes != nil) == network && last.CPU != nil && last.Memory != nil && last.EphemeralStorage != nil
	}
	defer func() {
		if t.Failed() {
			text, _ := json.MarshalIndent(last, "", " ")
			t.Logf("the last: %s", text)
		}
	}()
	within(t, patience, "the statistics", whole)
	main := last.Containers[0]
	// The three seconds, and what the start and the copies take.
	if used := float64(*main.CPU.UsageCoreNanoSeconds) / 1e9; used < 2.85 || used > 7 {
		t.Errorf("CPU: %.2f s, not 3 s and a little", used)
	}
	if set := *main.Memory.WorkingSetBytes; set < 32<<20 || set > 64<<20 {
		t.Errorf("working set: %d", set)
	}
	if used := *main.Rootfs.UsedBytes; used < 16<<20 || used > 17<<20 {
		t.Errorf("written: %d", used)
	}
	if !network {
		return
	}
	// Bytes that come to the pod.
	before := *last.Network.RxBytes
	for range 20 {
		if out, _, code := p.session("ws", "main", "", "true"); code != 0 {
			t.Error(out)
		}
	}
	p.sh("main", "httpd -p 8080 -h / && sleep 1")
	got := len(fetch(t, "http://"+p.get().Status.PodIP+":8080/written"))
	equal(t, "fetched", got, 16<<20)
	within(t, patience, "the network's share", func() bool {
		now := p.summary()
		return now != nil && now.Network != nil && *now.Network.TxBytes > 16<<20 && *now.Network.RxBytes > before
	})
	if sent := *p.summary().Network.TxBytes; sent > 18<<20 {
		t.Errorf("sent: %d", sent)
	}
}

func TestStatistics(t *testing.T) {
	// The kubelet's cAdvisor counts the network of a pod where a process of its sandbox is.
	measured(t, "stats", subject != "cricket")
	body, err := get("/metrics/resource")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^container_cpu_usage_seconds_total\{container="main",namespace="default",pod="stats-ring"\} (\S+)`).FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("no CPU of the pod in %s", body)
	}
	if seconds, err := strconv.ParseFloat(found[1], 64); err != nil || seconds < 2.85 {
		t.Errorf("container_cpu_usage_seconds_total: %s", found[1])
	}
}

func TestStatisticsWithASandboxProcess(t *testing.T) {
	if subject != "cricket" {
		t.Skip("the peer always has one")
	}
	config := filepath.Join(dir, "cricket.toml")
	plain, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}
	with := func(content string) {
		if err := os.WriteFile(config, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		restart(t, "cricket", syscall.SIGTERM)
	}
	with("sandbox_process = \"always\"\n" + string(plain))
	measured(t, "stats-process", true)
	with(string(plain))
}

func TestStatisticsFromTheRuntimeAlone(t *testing.T) {
	reconfigure(t, map[string]any{"featureGates": gates("PodAndContainerStatsFromCRI")})
	measured(t, "stats-cri", true)
	if subject == "cricket" {
		exposed(t, "stats-cri")
	}
	reconfigure(t, nil)
}

// A line that a scraper reads: name, labels, value, and the time of what was not measured now.
var line = regexp.MustCompile(`(?m)^(\w+)\{([^}]*)\} (\S+)( \d+)?$`)
var label = regexp.MustCompile(`(\w+)="([^"]*)"`)

// exposed is /metrics/cadvisor with what measured has done.
func exposed(t *testing.T, name string) {
	t.Helper()
	full := (&pod{name: name}).full()
	body, err := get("/metrics/cadvisor")
	if err != nil {
		t.Fatal(err)
	}
	// Of the pod and its container: name and further labels, to the value.
	whole, main := map[string]float64{}, map[string]float64{}
	for _, found := range line.FindAllStringSubmatch(body, -1) {
		labels, key := map[string]string{}, found[1]
		for _, one := range label.FindAllStringSubmatch(found[2], -1) {
			labels[one[1]] = one[2]
			if !slices.Contains([]string{"id", "image", "namespace", "pod", "container"}, one[1]) {
				key += " " + one[2]
			}
		}
		if labels["pod"] != full {
			continue
		}
		value, err := strconv.ParseFloat(found[3], 64)
		if err != nil {
			t.Error(found[0])
		}
		of := main
		equal(t, found[1]+": namespace", labels["namespace"], "default")
		if labels["container"] == "" {
			of = whole
			equal(t, found[1]+": image", labels["image"], "")
		} else {
			equal(t, found[1]+": container", labels["container"], "main")
			if !strings.Contains(labels["image"], "busybox") {
				t.Errorf("%s: image %q", found[1], labels["image"])
			}
		}
		if _, twice := of[key]; twice {
			t.Errorf("twice: %s", found[0])
		}
		of[key] = value
	}
	between := func(what string, values map[string]float64, key string, least, most float64) {
		value, there := values[key]
		if !there || value < least || value > most {
			t.Errorf("%s of the %s: %v, %v", key, what, value, there)
		}
	}
	device := ""
	for key := range main {
		if found, yes := strings.CutPrefix(key, "container_fs_usage_bytes "); yes {
			device = found
		}
	}
	between("container", main, "container_cpu_usage_seconds_total total", 2, 8)
	between("container", main, "container_memory_working_set_bytes", 32<<20, 64<<20)
	between("container", main, "container_memory_rss", 1<<10, 16<<20)
	between("container", main, "container_memory_cache", 32<<20, 128<<20)
	between("container", main, "container_fs_usage_bytes "+device, 16<<20, 17<<20)
	between("container", main, "container_fs_limit_bytes "+device, 1<<30, 1<<60)
	between("container", main, "container_processes", 1, 20)
	between("container", main, "container_file_descriptors", 3, 200)
	between("container", main, "container_spec_cpu_shares", 2, 2)
	between("container", main, "container_start_time_seconds", 1e9, 1e11)
	between("pod", whole, "container_network_transmit_bytes_total eth0", 16<<20, 18<<20)
	between("pod", whole, "container_network_receive_bytes_total eth0", 1<<10, 16<<20)
	between("pod", whole, "container_memory_working_set_bytes", 32<<20, 64<<20)
	between("pod", whole, "container_cpu_usage_seconds_total total", 2, 8)
	if len(main) < 36 || len(whole) < 36 {
		t.Errorf("%d of the container, %d of the pod: %v %v", len(main), len(whole), main, whole)
	}
	// The kubelet's own about the machine are there as before.
	if !strings.Contains(body, "\nmachine_cpu_cores") {
		t.Error("no machine_cpu_cores")
	}
}
