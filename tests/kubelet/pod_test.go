package kubelet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
	"sigs.k8s.io/yaml"
)

// What the manifests call the images.
var names = strings.NewReplacer(
	"$BUSYBOX", "registry.k8s.io/e2e-test-images/busybox:1.29-2",
	"$NGINX", "registry.k8s.io/e2e-test-images/nginx:1.14-2",
	"$HTTPD", "registry.k8s.io/e2e-test-images/httpd:2.4.39-4",
	"$PRIVATE", "private.ring.test/e2e-test-images/busybox:1.29-2",
	"$DIR", dir,
)

// pod is a static pod of a scenario.
type pod struct {
	t    *testing.T
	name string
}

// manifest writes the manifest of a pod with this specification; the scenario's end takes it away again.
func manifest(t *testing.T, name, spec string, annotations ...string) *pod {
	t.Helper()
	var parsed map[string]any
	if err := yaml.Unmarshal([]byte(names.Replace(spec)), &parsed); err != nil {
		t.Fatal(err)
	}
	metadata := map[string]any{"name": name, "namespace": "default", "labels": map[string]any{"ring": name}}
	if len(annotations) == 2 {
		metadata["annotations"] = map[string]any{annotations[0]: annotations[1]}
	}
	bytes, err := json.Marshal(map[string]any{"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": parsed})
	if err != nil {
		t.Fatal(err)
	}
	p := &pod{t, name}
	// Not seen by the kubelet half written.
	temporary := filepath.Join(dir, name+".tmp")
	if err := errors.Join(os.WriteFile(temporary, bytes, 0o644), os.Rename(temporary, p.path())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			last, _ := json.MarshalIndent(p.get().Status, "", " ")
			t.Logf("%s when it failed: %s", name, last)
		}
		p.remove()
	})
	return p
}

// running waits until every container is ready.
func running(t *testing.T, name, spec string) *pod {
	t.Helper()
	p := manifest(t, name, spec)
	p.await("readiness", ready)
	return p
}

func (p *pod) path() string { return filepath.Join(dir, "manifests", p.name+".json") }

// full is the name that the kubelet gives a static pod.
func (p *pod) full() string { return p.name + "-" + nodeName }

func (p *pod) remove() {
	if err := os.Remove(p.path()); err != nil && !errors.Is(err, os.ErrNotExist) {
		p.t.Error(err)
	}
}

// gone takes the manifest away and waits until the kubelet has ended the pod, which its own list does not show: what has no
// manifest any more is not in it.
func (p *pod) gone() {
	p.t.Helper()
	p.remove()
	within(p.t, patience, "the end of "+p.name, func() bool {
		sandboxes, err := p.readySandboxes()
		return err == nil && len(sandboxes) == 0
	})
}

// readySandboxes of the pod, as the runtime lists them.
func (p *pod) readySandboxes() ([]*cri.PodSandbox, error) {
	answer, err := runtime.ListPodSandbox(p.t.Context(), &cri.ListPodSandboxRequest{Filter: &cri.PodSandboxFilter{
		LabelSelector: map[string]string{"io.kubernetes.pod.name": p.full()},
		State:         &cri.PodSandboxStateValue{State: cri.PodSandboxState_SANDBOX_READY}}})
	return answer.GetItems(), err
}

// get is the pod as the kubelet has it; without a name if it has none.
func (p *pod) get() v1.Pod {
	body, err := get("/pods")
	var list v1.PodList
	if err == nil && json.Unmarshal([]byte(body), &list) == nil {
		for _, found := range list.Items {
			if found.Name == p.full() {
				return found
			}
		}
	}
	return v1.Pod{}
}

func (p *pod) await(what string, is func(v1.Pod) bool) v1.Pod {
	p.t.Helper()
	var last v1.Pod
	within(p.t, patience, what+" of "+p.name, func() bool {
		last = p.get()
		return last.Name != "" && is(last)
	})
	return last
}

func ready(pod v1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == v1.PodReady {
			return condition.Status == v1.ConditionTrue
		}
	}
	return false
}

// status of one container, of whatever kind.
func status(pod v1.Pod, name string) v1.ContainerStatus {
	for _, found := range append(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses...) {
		if found.Name == name {
			return found
		}
	}
	return v1.ContainerStatus{}
}

// ended waits for the end of a container and returns how it ended, now or before its last start.
func (p *pod) ended(name string) v1.ContainerStateTerminated {
	p.t.Helper()
	var how *v1.ContainerStateTerminated
	p.await("the end of "+name, func(pod v1.Pod) bool {
		found := status(pod, name)
		how = found.State.Terminated
		if how == nil {
			how = found.LastTerminationState.Terminated
		}
		return how != nil
	})
	return *how
}

func (p *pod) logs(name, query string) string {
	p.t.Helper()
	body, err := get("/containerLogs/default/" + p.full() + "/" + name + "?" + query)
	if err != nil {
		p.t.Fatal(err)
	}
	return body
}

// says waits for a text in a log.
func (p *pod) says(name, text string) {
	p.t.Helper()
	within(p.t, patience, fmt.Sprintf("%q in the log of %s", text, name), func() bool {
		body, err := get("/containerLogs/default/" + p.full() + "/" + name)
		return err == nil && strings.Contains(body, text)
	})
}

var kubelet = &rest.Config{Host: "https://" + address, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}

// executor opens a session as kubectl does, over SPDY or a WebSocket.
func executor(t *testing.T, protocol, path string, query url.Values) remotecommand.Executor {
	t.Helper()
	at := &url.URL{Scheme: "https", Host: address, Path: path, RawQuery: query.Encode()}
	var made remotecommand.Executor
	var err error
	switch protocol {
	case "spdy":
		made, err = remotecommand.NewSPDYExecutor(kubelet, http.MethodPost, at)
	default:
		made, err = remotecommand.NewWebSocketExecutor(kubelet, http.MethodGet, at.String())
	}
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// buffer is written by a session and read by the scenario meanwhile.
type buffer struct {
	mutex sync.Mutex
	bytes bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.bytes.Write(p)
}

func (b *buffer) String() string {
	b.mutex.Lock()
	defer b.mutex.Unlock()
	return b.bytes.String()
}

// session runs a command with what stdin holds; its outputs and its code.
func (p *pod) session(protocol, name, stdin string, command ...string) (string, string, int) {
	p.t.Helper()
	query := url.Values{"command": command, "output": {"1"}, "error": {"1"}}
	options := remotecommand.StreamOptions{}
	var out, complaint buffer
	options.Stdout, options.Stderr = &out, &complaint
	if stdin != "" {
		query.Set("input", "1")
		options.Stdin = io.LimitReader(strings.NewReader(stdin), int64(len(stdin)))
	}
	limit, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := executor(p.t, protocol, "/exec/default/"+p.full()+"/"+name, query).StreamWithContext(limit, options)
	code := 0
	var exit exec.CodeExitError
	switch {
	case err == nil:
	case errors.As(err, &exit):
		code = exit.Code
	default:
		p.t.Fatalf("exec %v: %v", command, err)
	}
	return out.String(), complaint.String(), code
}

// sh runs a command line that must succeed, and returns what it says.
func (p *pod) sh(name, line string) string {
	p.t.Helper()
	out, complaint, code := p.session("ws", name, "", "sh", "-c", line)
	if code != 0 {
		p.t.Fatalf("%s: exit code %d: %s%s", line, code, out, complaint)
	}
	return strings.TrimSpace(out)
}

func equal[T comparable](t *testing.T, what string, got, expected T) {
	t.Helper()
	if got != expected {
		t.Errorf("%s: %v, not %v", what, got, expected)
	}
}

func contains(t *testing.T, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s: no %q in %q", what, part, text)
		}
	}
}

// since is for what must take its time, but may take longer.
func since(t *testing.T, what string, from time.Time, least time.Duration) {
	t.Helper()
	if took := time.Since(from); took < least {
		t.Errorf("%s took %s, less than %s", what, took, least)
	}
}
