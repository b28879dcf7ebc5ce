package kubelet

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const benchPods = 20

// what one run of the benchmark measures, as bench.sh reads it.
type figures struct {
	Start        float64            // s, from the manifests to all pods Ready
	Delete       float64            // s, from the manifests' end to no sandbox Ready
	CPU          map[string]float64 // ms in a second, by program, under the kubelet with all pods at rest
	EmptyMemory  float64            // MiB of PSS of those processes, before the first pod
	MemoryPerPod float64            // MiB of PSS that each pod adds
}

// TestBenchmark is played alone, by bench.sh.
func TestBenchmark(t *testing.T) {
	if os.Getenv("RING_BENCH") == "" {
		t.Skip("bench.sh plays it")
	}
	if _, err := images.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: names.Replace("$BUSYBOX")}}); err != nil {
		t.Fatal(err)
	}
	// Its questions come as often as they do by default, not as the scenarios want them.
	reconfigure(t, map[string]any{"syncFrequency": "1m", "fileCheckFrequency": "20s", "containerLogMonitorInterval": "10s",
		"volumeStatsAggPeriod": "1m"})
	var f figures
	f.EmptyMemory = memory(t)
	began := time.Now()
	var pods []*pod
	for i := range benchPods {
		pods = append(pods, manifest(t, fmt.Sprintf("bench-%d", i), `
containers: [{name: main, image: $BUSYBOX, command: [sh, -c, "trap 'exit 0' TERM; sleep 10000 & wait"]}]
`))
	}
	until(t, began, &f.Start, "all pods' readiness", func() bool {
		body, err := get("/pods")
		var list v1.PodList
		if err != nil || json.Unmarshal([]byte(body), &list) != nil {
			return false
		}
		up := 0
		for _, found := range list.Items {
			if ready(found) {
				up++
			}
		}
		return up == benchPods
	})
	// The start has settled.
	time.Sleep(15 * time.Second)
	f.MemoryPerPod = (memory(t) - f.EmptyMemory) / benchPods
	before := cpu(t)
	rest := 60 * time.Second
	time.Sleep(rest)
	f.CPU = map[string]float64{}
	for name, used := range cpu(t) {
		f.CPU[name] = (used - before[name]) / rest.Seconds() * 1000
	}
	began = time.Now()
	for _, p := range pods {
		p.remove()
	}
	until(t, began, &f.Delete, "the end of all pods", func() bool {
		answer, err := runtime.ListPodSandbox(t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
			State: &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}})
		return err == nil && len(answer.Items) == 0
	})
	line, err := json.Marshal(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(report, "bench.json"), line, 0o644); err != nil {
		t.Fatal(err)
	}
}

func until(t *testing.T, began time.Time, took *float64, what string, is func() bool) {
	t.Helper()
	within(t, 2*patience, what, is)
	*took = time.Since(began).Seconds()
}

// runtimeProcesses are containerd, cricket, their shims, and the pause processes below those.
func runtimeProcesses(t *testing.T) (pids []int) {
	t.Helper()
	shims := map[string]bool{}
	all, _ := filepath.Glob("/proc/[0-9]*")
	for _, path := range all {
		line, err := os.ReadFile(filepath.Join(path, "cmdline"))
		text := string(line)
		if err == nil && (strings.Contains(text, containerd) && !strings.Contains(text, "kubelet.json") ||
			strings.Contains(text, dir+"/containerd.toml") || strings.Contains(text, dir+"/cricket.toml")) {
			pid, _ := strconv.Atoi(filepath.Base(path))
			pids = append(pids, pid)
			shims[filepath.Base(path)] = true
		}
	}
	for _, path := range all {
		stat := strings.Fields(text(filepath.Join(path, "stat")))
		if len(stat) > 3 && stat[1] == "(pause)" && shims[stat[3]] {
			pid, _ := strconv.Atoi(filepath.Base(path))
			pids = append(pids, pid)
		}
	}
	return pids
}

// text of a file, empty if it has gone.
func text(path string) string {
	content, _ := os.ReadFile(path)
	return string(content)
}

// memory is the sum of their PSS in MiB.
func memory(t *testing.T) (sum float64) {
	for _, pid := range runtimeProcesses(t) {
		lines := bufio.NewScanner(strings.NewReader(text(fmt.Sprintf("/proc/%d/smaps_rollup", pid))))
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) > 1 && fields[0] == "Pss:" {
				kib, _ := strconv.ParseFloat(fields[1], 64)
				sum += kib / 1024
			}
		}
	}
	return sum
}

// cpu is the time that they and the children that they have waited for have used, in seconds, by the program's name.
func cpu(t *testing.T) map[string]float64 {
	sums := map[string]float64{}
	for _, pid := range runtimeProcesses(t) {
		name := strings.TrimSpace(text(fmt.Sprintf("/proc/%d/comm", pid)))
		_, after, _ := strings.Cut(text(fmt.Sprintf("/proc/%d/stat", pid)), ") ")
		fields := strings.Fields(after)
		if len(fields) < 15 {
			continue
		}
		for _, field := range fields[11:15] {
			ticks, _ := strconv.ParseFloat(field, 64)
			// USER_HZ.
			sums[name] += ticks / 100
		}
	}
	return sums
}
