package kubelet

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

// What a person does to a cluster, by kubectl: an API server stands before the kubelet, see cluster.sh.

// TestCluster is played when there is one; all the other scenarios when there is none.
func TestCluster(t *testing.T) {
	if cluster == "" {
		t.Skip("make cluster-test plays it")
	}
	within(t, patience, "a node that is ready", func() bool {
		ready, err := try("", "get", "node", nodeName, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		return err == nil && ready == "True"
	})
	t.Run("run, exec and delete", testRun)
	t.Run("cp", testCopy)
	t.Run("logs", testLogs)
	t.Run("port-forward", testForward)
	t.Run("a deployment on a port of the host, and its restart", testDeployment)
	t.Run("secrets, settings and the token of an account", testProjected)
	t.Run("resize in place", testResize)
	t.Run("runtime classes", testRuntimeClasses)
	t.Run("read-only mounts, recursively", testRecursive)
	t.Run("more than its share of the disk", testEphemeral)
	t.Run("debug", testDebug)
	t.Run("a job", testJob)
	t.Run("drain", testDrain)
}

// try is kubectl with this input; what it says, without the line's end.
func try(input string, words ...string) (string, error) {
	limit, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	command := kubectl(limit, words...)
	command.Stdin = strings.NewReader(input)
	var out, complaint bytes.Buffer
	command.Stdout, command.Stderr = &out, &complaint
	if err := command.Run(); err != nil {
		return out.String(), fmt.Errorf("kubectl %s: %w: %s", strings.Join(words, " "), err, complaint.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func kubectl(limit context.Context, words ...string) *exec.Cmd {
	command := exec.CommandContext(limit, filepath.Join(bin, "kubectl"), words...)
	// Its cache too is the ring's own.
	command.Env = append(os.Environ(), "KUBECONFIG="+cluster, "HOME="+dir)
	return command
}

// must succeed.
func must(t *testing.T, words ...string) string {
	t.Helper()
	said, err := try("", words...)
	if err != nil {
		t.Fatal(err)
	}
	return said
}

// apply makes objects; the scenario's end takes them away, and waits for that.
func apply(t *testing.T, objects string) {
	t.Helper()
	objects = names.Replace(objects)
	if said, err := try(objects, "apply", "-f", "-"); err != nil {
		t.Fatal(said, err)
	}
	t.Cleanup(func() {
		if said, err := try(objects, "delete", "--ignore-not-found", "--grace-period=1", "--timeout=60s", "-f", "-"); err != nil {
			t.Error(said, err)
		}
	})
}

// object is a pod as the API server has it.
func object(t *testing.T, name string) (pod v1.Pod) {
	t.Helper()
	if err := json.Unmarshal([]byte(must(t, "get", "pod", name, "-o", "json")), &pod); err != nil {
		t.Fatal(err)
	}
	return pod
}

func becomes(t *testing.T, name, what string, is func(v1.Pod) bool) (pod v1.Pod) {
	t.Helper()
	defer func() {
		if t.Failed() {
			t.Log(try("", "describe", "pod", name))
		}
	}()
	within(t, patience, what+" of "+name, func() bool {
		pod = object(t, name)
		return is(pod)
	})
	return pod
}

// inPod runs a line of shell that must succeed.
func inPod(t *testing.T, name, line string) string {
	t.Helper()
	return must(t, "exec", name, "--", "sh", "-c", line)
}

const sleeping = `
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]}
`

func sleepingPod(t *testing.T, name string) {
	t.Helper()
	apply(t, strings.ReplaceAll(sleeping, "NAME", name))
	becomes(t, name, "readiness", ready)
}

func testRun(t *testing.T) {
	must(t, "run", "one", "--image="+names.Replace("$BUSYBOX"), "--restart=Never", "--", "sleep", "1000")
	pod := becomes(t, "one", "readiness", ready)
	equal(t, "node", pod.Spec.NodeName, nodeName)
	for _, protocol := range []string{"true", "false"} {
		limit, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		command := kubectl(limit, "exec", "-i", "one", "--", "sh", "-c", "cat; echo err >&2; exit 7")
		command.Env = append(command.Env, "KUBECTL_REMOTE_COMMAND_WEBSOCKETS="+protocol)
		in := strings.Repeat("0123456789abcdef", 1<<16)
		command.Stdin = strings.NewReader(in)
		var out, complaint bytes.Buffer
		command.Stdout, command.Stderr = &out, &complaint
		var exit *exec.ExitError
		if err := command.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
			t.Errorf("exec, WebSocket %s: %v", protocol, err)
		}
		equal(t, "1 MiB in and out, WebSocket "+protocol, out.String() == in, true)
		contains(t, "stderr", complaint.String(), "err\n", "exit code 7")
	}
	must(t, "delete", "pod", "one", "--grace-period=1")
	if said, err := try("", "get", "pod", "one"); err == nil {
		t.Errorf("deleted and there: %s", said)
	}
}

func testCopy(t *testing.T) {
	sleepingPod(t, "copy")
	from, back := filepath.Join(t.TempDir(), "from"), filepath.Join(t.TempDir(), "back")
	content := bytes.Repeat([]byte("cricket\n\x00\xff"), 3<<18)
	if err := os.WriteFile(from, content, 0o640); err != nil {
		t.Fatal(err)
	}
	must(t, "cp", from, "copy:/tmp/there")
	sum := fmt.Sprintf("%x", sha256.Sum256(content))
	contains(t, "in the pod", inPod(t, "copy", "sha256sum /tmp/there"), sum)
	must(t, "cp", "copy:/tmp/there", back)
	again, err := os.ReadFile(back)
	if err != nil || !bytes.Equal(again, content) {
		t.Errorf("it came back otherwise: %d of %d bytes, %v", len(again), len(content), err)
	}
}

func testLogs(t *testing.T) {
	apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: talks}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: here, emptyDir: {}}]
  containers:
  - name: main
    image: $BUSYBOX
    volumeMounts: [{name: here, mountPath: /here}]
    command: [sh, -c, 'n=$(cat /here/n 2>/dev/null || echo 0); echo $((n+1)) >/here/n; echo life $n; [ $n = 0 ] && exit 3; while :; do echo more; sleep 0.2; done']
`)
	becomes(t, "talks", "second life", func(pod v1.Pod) bool { return status(pod, "main").RestartCount == 1 && ready(pod) })
	contains(t, "the first life", must(t, "logs", "talks", "--previous"), "life 0")
	contains(t, "the second life", must(t, "logs", "talks"), "life 1")
	limit, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	command := kubectl(limit, "logs", "-f", "--tail=1", "talks")
	out, err := command.StdoutPipe()
	if err := errors.Join(err, command.Start()); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range 5 {
		if !lines.Scan() || lines.Text() != "more" {
			t.Fatalf("followed: %q %v", lines.Text(), lines.Err())
		}
	}
	cancel()
	_ = command.Wait()
}

func testForward(t *testing.T) {
	apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: web}
spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: $HTTPD, readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}]}
`)
	becomes(t, "web", "readiness", ready)
	for _, protocol := range []string{"true", "false"} {
		limit, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		command := kubectl(limit, "port-forward", "pod/web", ":80")
		command.Env = append(command.Env, "KUBECTL_PORT_FORWARD_WEBSOCKETS="+protocol)
		out, err := command.StdoutPipe()
		if err := errors.Join(err, command.Start()); err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(out).ReadString('\n')
		var port int
		if _, other := fmt.Sscanf(line, "Forwarding from 127.0.0.1:%d", &port); errors.Join(err, other) != nil {
			t.Fatalf("port-forward, WebSocket %s: %q %v %v", protocol, line, err, other)
		}
		go func() { _, _ = io.Copy(io.Discard, out) }()
		for range 10 {
			contains(t, "the page, WebSocket "+protocol, fetch(t, fmt.Sprintf("http://127.0.0.1:%d/index.html", port)), "It works")
		}
		cancel()
		_ = command.Wait()
	}
}

func testDeployment(t *testing.T) {
	apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: site}
spec:
  selector: {matchLabels: {app: site}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: site}}
    spec:
      terminationGracePeriodSeconds: 1
      containers:
      - {name: main, image: $HTTPD, ports: [{containerPort: 80, hostPort: 18081}], readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: rolls}
spec:
  replicas: 3
  selector: {matchLabels: {app: rolls}}
  template:
    metadata: {labels: {app: rolls}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]}
`)
	must(t, "rollout", "status", "deployment/site", "--timeout=100s")
	must(t, "rollout", "status", "deployment/rolls", "--timeout=100s")
	sleepingPod(t, "asks")
	ask := "wget -qO- http://10.215.0.1:18081/index.html"
	contains(t, "by the port of the host", inPod(t, "asks", ask), "It works")
	pods := func(app string) string {
		return must(t, "get", "pods", "-l", "app="+app, "-o", "jsonpath={.items[*].metadata.uid}")
	}
	before := strings.Fields(pods("rolls") + " " + pods("site"))
	equal(t, "pods", len(before), 4)
	must(t, "rollout", "restart", "deployment/site", "deployment/rolls")
	must(t, "rollout", "status", "deployment/site", "--timeout=100s")
	must(t, "rollout", "status", "deployment/rolls", "--timeout=100s")
	within(t, patience, "the end of the old pods", func() bool { return len(strings.Fields(pods("rolls"))) == 3 })
	for _, uid := range before {
		if strings.Contains(pods("rolls")+pods("site"), uid) {
			t.Errorf("pod %s is still there", uid)
		}
	}
	// The port went over to the new pod.
	contains(t, "by the port of the host", inPod(t, "asks", ask), "It works")
}

func testProjected(t *testing.T) {
	apply(t, `
{apiVersion: v1, kind: Secret, metadata: {name: password}, stringData: {word: xyzzy}}
---
{apiVersion: v1, kind: ConfigMap, metadata: {name: settings}, data: {colour: "blue", "file.conf": "a = 1"}}
---
apiVersion: v1
kind: Pod
metadata: {name: configured, annotations: {note: here}}
spec:
  terminationGracePeriodSeconds: 1
  volumes:
  - {name: secret, secret: {secretName: password, defaultMode: 0400}}
  - {name: all, projected: {sources: [{configMap: {name: settings}}, {downwardAPI: {items: [{path: note, fieldRef: {fieldPath: "metadata.annotations['note']"}}]}}]}}
  containers:
  - name: main
    image: $BUSYBOX
    command: [sleep, "1000"]
    envFrom: [{configMapRef: {name: settings}}]
    env: [{name: WORD, valueFrom: {secretKeyRef: {name: password, key: word}}}]
    volumeMounts: [{name: secret, mountPath: /secret}, {name: all, mountPath: /all}]
`)
	becomes(t, "configured", "readiness", ready)
	equal(t, "variables", inPod(t, "configured", "echo $WORD $colour"), "xyzzy blue")
	equal(t, "the secret", inPod(t, "configured", "cat /secret/word; stat -Lc ' %a' /secret/word"), "xyzzy 400")
	equal(t, "projected", inPod(t, "configured", "cat /all/file.conf /all/note"), "a = 1here")
	token := inPod(t, "configured", "cat /var/run/secrets/kubernetes.io/serviceaccount/token | wc -c; ls /var/run/secrets/kubernetes.io/serviceaccount")
	contains(t, "the account", token, "ca.crt", "namespace", "token")
	must(t, "patch", "configmap", "settings", "-p", `{"data": {"file.conf": "a = 2"}}`)
	within(t, patience, "the new setting", func() bool { return inPod(t, "configured", "cat /all/file.conf") == "a = 2" })
}

func testResize(t *testing.T) {
	apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: grows}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: $BUSYBOX, command: [sleep, "1000"], resources: {requests: {cpu: 20m, memory: 20Mi}, limits: {cpu: 100m, memory: 40Mi}}}
`)
	before := becomes(t, "grows", "readiness", ready)
	must(t, "patch", "pod", "grows", "--subresource=resize", "-p",
		`{"spec": {"containers": [{"name": "main", "resources": {"requests": {"cpu": "30m"}, "limits": {"cpu": "200m", "memory": "60Mi"}}}]}}`)
	after := becomes(t, "grows", "its new limits", func(pod v1.Pod) bool {
		given := status(pod, "main").Resources
		return given != nil && given.Limits.Cpu().MilliValue() == 200 && given.Limits.Memory().Value() == 60<<20
	})
	equal(t, "restarts", status(after, "main").RestartCount, 0)
	equal(t, "id", id(after, "main"), id(before, "main"))
	equal(t, "memory", inCgroup(t, id(after, "main"), "memory", "memory.limit_in_bytes"), fmt.Sprint(60<<20))
	equal(t, "cpu", inCgroup(t, id(after, "main"), "cpu", "cpu.cfs_quota_us"), "20000")
}

func testRuntimeClasses(t *testing.T) {
	apply(t, `
{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: known}, handler: runc}
---
{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: unknown}, handler: there-is-none}
---
apiVersion: v1
kind: Pod
metadata: {name: classy}
spec: {runtimeClassName: known, terminationGracePeriodSeconds: 1, containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]}
---
apiVersion: v1
kind: Pod
metadata: {name: classless}
spec: {runtimeClassName: unknown, terminationGracePeriodSeconds: 1, containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]}
`)
	becomes(t, "classy", "readiness", ready)
	within(t, patience, "a reason", func() bool {
		return strings.Contains(must(t, "get", "events", "--field-selector=involvedObject.name=classless"), "there-is-none")
	})
}

func testRecursive(t *testing.T) {
	features := must(t, "get", "node", nodeName, "-o", `jsonpath={.status.runtimeHandlers[?(@.name=="runc")].features.recursiveReadOnlyMounts}`)
	if features != "true" {
		t.Skipf("the runtime below says that it cannot: recursiveReadOnlyMounts is %q", features)
	}
	at := filepath.Join(dir, "recursive")
	if err := os.MkdirAll(at+"/inner", 0o755); err != nil {
		t.Fatal(err)
	}
	tmpfs(t, at+"/inner")
	apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: only-reads}
spec:
  terminationGracePeriodSeconds: 1
  volumes: [{name: host, hostPath: {path: $DIR/recursive}}]
  containers:
  - {name: main, image: $BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: host, mountPath: /host, readOnly: true, recursiveReadOnly: Enabled}]}
`)
	pod := becomes(t, "only-reads", "readiness", ready)
	for _, place := range []string{"/host", "/host/inner"} {
		equal(t, place, inPod(t, "only-reads", "touch "+place+"/x 2>/dev/null || echo refused"), "refused")
	}
	said, err := json.Marshal(status(pod, "main").VolumeMounts)
	if err != nil {
		t.Fatal(err)
	}
	contains(t, "its status", string(said), `"recursiveReadOnly":"Enabled"`)
}

// The kubelet knows what a container has written from our statistics, and puts an end to too much.
func testEphemeral(t *testing.T) {
	apply(t, `
apiVersion: v1
kind: Pod
metadata: {name: writes}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 1
  containers:
  - {name: main, image: $BUSYBOX, command: [sh, -c, "dd if=/dev/zero of=/big bs=1M count=8; sleep 1000"], resources: {limits: {ephemeral-storage: 4Mi}}}
`)
	pod := becomes(t, "writes", "eviction", func(pod v1.Pod) bool { return pod.Status.Phase == v1.PodFailed })
	equal(t, "reason", pod.Status.Reason, "Evicted")
	contains(t, "message", pod.Status.Message, "ephemeral")
}

// A container more in a pod that runs, which sees the processes of another.
func testDebug(t *testing.T) {
	sleepingPod(t, "sick")
	must(t, "debug", "sick", "--image="+names.Replace("$BUSYBOX"), "--target=main", "--container=doctor", "--", "sh", "-c", "ps >/proc/1/root/tmp/seen; sleep 1000")
	becomes(t, "sick", "the other container", func(pod v1.Pod) bool {
		for _, found := range pod.Status.EphemeralContainerStatuses {
			if found.State.Running != nil {
				return true
			}
		}
		return false
	})
	within(t, patience, "what it saw", func() bool {
		seen, err := try("", "exec", "sick", "-c", "main", "--", "cat", "/tmp/seen")
		return err == nil && strings.Contains(seen, "sleep 1000")
	})
}

func testJob(t *testing.T) {
	apply(t, `
apiVersion: batch/v1
kind: Job
metadata: {name: work}
spec:
  completions: 6
  parallelism: 3
  template:
    spec: {restartPolicy: Never, containers: [{name: main, image: $BUSYBOX, command: [sh, -c, "echo done"]}]}
`)
	must(t, "wait", "--for=condition=Complete", "job/work", "--timeout=100s")
	equal(t, "what they said", strings.Count(must(t, "logs", "-l", "job-name=work", "--tail=-1"), "done"), 6)
}

func testDrain(t *testing.T) {
	apply(t, `
apiVersion: apps/v1
kind: Deployment
metadata: {name: stays}
spec:
  replicas: 2
  selector: {matchLabels: {app: stays}}
  template:
    metadata: {labels: {app: stays}}
    spec: {terminationGracePeriodSeconds: 1, containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]}
`)
	must(t, "rollout", "status", "deployment/stays", "--timeout=100s")
	sleepingPod(t, "alone")
	must(t, "drain", nodeName, "--force", "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=100s")
	left := must(t, "get", "pods", "-o", `jsonpath={range .items[?(@.spec.nodeName)]}{.metadata.name} {end}`)
	equal(t, "pods on a node that was drained", left, "")
	must(t, "uncordon", nodeName)
	began := time.Now()
	must(t, "rollout", "status", "deployment/stays", "--timeout=100s")
	t.Logf("back %s after the node was open again", time.Since(began))
}
