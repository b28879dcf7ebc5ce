package kubelet

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// What the daemon may have more at the end of a soak than it had when it had seen every kind of pod.
const (
	growth  = 1 << 20
	handles = 4
)

// TestSoak has pods come and go; what is left of them is asked for at the end of all scenarios.
func TestSoak(t *testing.T) {
	if soak == "" {
		t.Skip("SOAK=30m plays it")
	}
	length, err := time.ParseDuration(soak)
	if err != nil {
		t.Fatal(err)
	}
	kinds := []struct {
		spec string
		is   func(v1.Pod) bool
	}{
		{sleeper, ready},
		{`
restartPolicy: Never
containers: [{name: main, image: $BUSYBOX, command: [sh, -c, "seq 1 2000; exit 3"]}]
`, func(pod v1.Pod) bool { return pod.Status.Phase == v1.PodFailed }},
		{`
terminationGracePeriodSeconds: 2
shareProcessNamespace: true
initContainers: [{name: first, image: $BUSYBOX, command: [sh, -c, "echo first"]}]
volumes: [{name: both, emptyDir: {medium: Memory}}]
containers:
- {name: main, image: $BUSYBOX, volumeMounts: [{name: both, mountPath: /both}], command: [sh, -c, "while :; do date >/both/now; sleep 0.1; done"],
   resources: {limits: {memory: 20Mi, cpu: 100m}}}
- {name: side, image: $BUSYBOX, volumeMounts: [{name: both, mountPath: /both}], command: [sleep, "1000"],
   readinessProbe: {exec: {command: [cat, /both/now]}, periodSeconds: 1}}
`, ready},
		{`
containers: [{name: main, image: $BUSYBOX, command: [sh, -c, "echo again; exit 1"]}]
`, func(pod v1.Pod) bool { return status(pod, "main").RestartCount >= 2 }},
	}
	end, waves := time.Now().Add(length), 0
	var first, last held
	for ; time.Now().Before(end); waves++ {
		var pods []*pod
		for i, kind := range kinds {
			pods = append(pods, manifest(t, fmt.Sprintf("soak-%d-%d", waves, i), kind.spec))
		}
		for i, p := range pods {
			p.await("its turn", kinds[i].is)
		}
		equal(t, "a command", pods[0].sh("main", "echo here"), "here")
		for _, p := range pods {
			p.gone()
		}
		// One connection of the kubelet's more or less is none of ours.
		last = daemonHolds(t)
		t.Logf("wave %d: %+v", waves, last)
		if waves == 3 {
			first = last
		}
	}
	if waves < 8 {
		t.Fatalf("%d waves are not enough to compare", waves)
	}
	if last.rss > first.rss+growth || last.files > first.files+handles || last.threads > first.threads+handles {
		t.Errorf("after %d waves the daemon has %+v, after four of them it had %+v", waves, last, first)
	}
}

// held is what the daemon holds: bytes of memory, files, threads.
type held struct{ rss, files, threads int }

func daemonHolds(t *testing.T) (now held) {
	t.Helper()
	pid, _ := daemon(filepath.Join(dir, subject+".toml"))
	if subject != "cricket" {
		pid, _ = daemon(filepath.Join(dir, "containerd.toml"))
	}
	for _, line := range strings.Split(text(fmt.Sprintf("/proc/%d/status", pid)), "\n") {
		name, value, _ := strings.Cut(line, ":")
		switch name {
		case "VmRSS":
			_, _ = fmt.Sscan(value, &now.rss)
			now.rss *= 1024
		case "Threads":
			_, _ = fmt.Sscan(value, &now.threads)
		}
	}
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	now.files = len(files)
	return now
}
