package kubelet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// reconfigure ends the kubelet and starts it with a configuration that differs so.
func reconfigure(t *testing.T, more map[string]any) {
	t.Helper()
	stop(t, filepath.Join(dir, "kubelet.json"), syscall.SIGTERM)
	if err := startKubelet(more); err != nil {
		t.Fatal(err)
	}
}

func tmpfs(t *testing.T, at string) {
	t.Helper()
	if err := syscall.Mount("tmpfs", at, "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(at, syscall.MNT_DETACH) })
}

// Nothing that restarts beside them may be seen by running pods.
func TestRestartsOfTheDaemons(t *testing.T) {
	p := running(t, "survivor", `
containers:
- {name: main, image: $BUSYBOX, command: [sh, -c, "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"]}
- {name: web, image: $HTTPD}
`)
	before := p.get()
	unchanged := func(what string) {
		t.Helper()
		// The kubelet has looked at it once more.
		time.Sleep(7 * time.Second)
		now := p.await("readiness", ready)
		equal(t, "IP after "+what, now.Status.PodIP, before.Status.PodIP)
		for _, name := range []string{"main", "web"} {
			was, is := status(before, name), status(now, name)
			equal(t, name+" after "+what, is.ContainerID, was.ContainerID)
			equal(t, name+" restarts after "+what, is.RestartCount, was.RestartCount)
			if is.State.Running == nil || !is.State.Running.StartedAt.Equal(&was.State.Running.StartedAt) {
				t.Errorf("%s after %s: %+v, was %+v", name, what, is.State, was.State)
			}
		}
		equal(t, "exec after "+what, p.sh("main", "echo here"), "here")
		contains(t, "network after "+what, fetch(t, "http://"+now.Status.PodIP+"/index.html"), "It works")
		at := p.lines(what)
		within(t, patience, "more lines after "+what, func() bool { return p.lines(what) > at })
	}
	reconfigure(t, nil)
	unchanged("a restart of the kubelet")
	if subject == "cricket" {
		restart(t, "cricket", syscall.SIGTERM)
		unchanged("a restart of cricket")
		restart(t, "cricket", syscall.SIGKILL)
		unchanged("a kill of cricket")
	}
	restart(t, "containerd", syscall.SIGTERM)
	unchanged("a restart of containerd")
	restart(t, "containerd", syscall.SIGKILL)
	unchanged("a kill of containerd")
}

// lines of the log, each a number that follows the one before, in the file that is written now.
func (p *pod) lines(when string) int {
	p.t.Helper()
	paths, _ := filepath.Glob(filepath.Join(dir, "pod-logs", "default_"+p.full()+"_*", "main", "0.log"))
	if len(paths) != 1 {
		p.t.Fatalf("logs: %v", paths)
	}
	content, err := os.ReadFile(paths[0])
	if err != nil {
		p.t.Fatal(err)
	}
	lines := strings.Split(string(content), "\n")
	lines = lines[:len(lines)-1]
	first := 0
	for i, line := range lines {
		fields := strings.Fields(line)
		var number int
		if len(fields) != 4 {
			p.t.Fatalf("after %s: a torn line %q", when, line)
		}
		if _, err := fmt.Sscan(fields[3], &number); err != nil {
			p.t.Fatalf("after %s: a torn line %q", when, line)
		}
		if i == 0 {
			first = number
		}
		if number != first+i {
			p.t.Fatalf("after %s: %d where %d was due", when, number, first+i)
		}
	}
	return first + len(lines)
}

// The sandbox's end is not the kubelet's doing: it makes another.
func TestASandboxThatDies(t *testing.T) {
	p := running(t, "dies", sleeper)
	before := status(p.get(), "main").ContainerID
	sandboxes, err := p.readySandboxes()
	if err != nil || len(sandboxes) != 1 {
		t.Fatalf("%v %v", sandboxes, err)
	}
	if _, err := runtime.StopPodSandbox(t.Context(), &cri.StopPodSandboxRequest{PodSandboxId: sandboxes[0].Id}); err != nil {
		t.Fatal(err)
	}
	p.await("another container", func(pod v1.Pod) bool { return status(pod, "main").ContainerID != before && ready(pod) })
}

// leftovers waits for the end of all pods, whose manifests are gone, and says what of them is left.
func leftovers() (found []string) {
	// The kubelet collects the dead once a minute.
	for end := time.Now().Add(4 * time.Minute); ; time.Sleep(time.Second) {
		pods, err := runtime.ListPodSandbox(context.Background(), &cri.ListPodSandboxRequest{})
		containers, other := runtime.ListContainers(context.Background(), &cri.ListContainersRequest{})
		if err := errors.Join(err, other); err != nil {
			return []string{err.Error()}
		}
		if len(pods.Items)+len(containers.Containers) == 0 {
			break
		}
		if time.Now().After(end) {
			return []string{fmt.Sprint(pods.Items, containers.Containers)}
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return []string{err.Error()}
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		fields := strings.Fields(line)
		if len(fields) > 4 && strings.HasPrefix(fields[4], dir+"/") && !strings.HasPrefix(fields[4], dir+"/kubelet/") {
			found = append(found, "mounted: "+line)
		}
	}
	for _, pattern := range []string{"cricket/netns/*", "ipam/conformance/10.*", "runc/k8s.io/*", "containerd/state/io.containerd.runtime.v2.task/k8s.io/*"} {
		left, _ := filepath.Glob(filepath.Join(dir, pattern))
		found = append(found, left...)
	}
	return found
}
