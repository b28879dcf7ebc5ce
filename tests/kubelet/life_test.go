package kubelet

import (
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestProbes(t *testing.T) {
	t.Parallel()
	t.Run("exec, http and tcp make ready", func(t *testing.T) {
		t.Parallel()
		p := running(t, "probes", `
containers:
- {name: exec, image: $BUSYBOX, command: [sh, -c, "sleep 2; touch /tmp/up; exec sleep 1000"],
   readinessProbe: {exec: {command: [cat, /tmp/up]}, periodSeconds: 1},
   startupProbe: {exec: {command: ["true"]}, periodSeconds: 1}}
- {name: http, image: $BUSYBOX, command: [httpd, -f, -p, "8080", -h, /www],
   readinessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1},
   livenessProbe: {httpGet: {port: 8080, path: /index.html}, periodSeconds: 1}}
- {name: tcp, image: $BUSYBOX, command: [httpd, -f, -p, "8081", -h, /www],
   readinessProbe: {tcpSocket: {port: 8081}, periodSeconds: 1}}
`)
		pod := p.get()
		for _, name := range []string{"exec", "http", "tcp"} {
			equal(t, name+" restarts", status(pod, name).RestartCount, 0)
		}
		began := status(pod, "exec").State.Running.StartedAt.Time
		for _, condition := range pod.Status.Conditions {
			if condition.Type == v1.PodReady && condition.LastTransitionTime.Sub(began) < time.Second {
				t.Errorf("ready %s after the start, before the file was there", condition.LastTransitionTime.Sub(began))
			}
		}
		// What is not ready any more.
		p.sh("exec", "rm /tmp/up")
		p.await("unreadiness", func(pod v1.Pod) bool { return !ready(pod) })
	})
	t.Run("a failing liveness probe restarts", func(t *testing.T) {
		t.Parallel()
		p := manifest(t, "liveness", `
terminationGracePeriodSeconds: 1
containers:
- {name: main, image: $BUSYBOX, command: [sh, -c, "touch /tmp/up; sleep 2; rm /tmp/up; exec sleep 1000"],
   livenessProbe: {exec: {command: [cat, /tmp/up]}, periodSeconds: 1, failureThreshold: 1}}
`)
		pod := p.await("a restart", func(pod v1.Pod) bool { return status(pod, "main").RestartCount > 0 })
		equal(t, "exit code", status(pod, "main").LastTerminationState.Terminated.ExitCode, 137)
	})
	t.Run("an exec probe that takes too long fails", func(t *testing.T) {
		t.Parallel()
		p := manifest(t, "probe-timeout", `
terminationGracePeriodSeconds: 1
containers:
- {name: main, image: $BUSYBOX, command: [sleep, "1000"],
   livenessProbe: {exec: {command: [sleep, "60"]}, periodSeconds: 1, timeoutSeconds: 1, failureThreshold: 1}}
`)
		p.await("a restart", func(pod v1.Pod) bool { return status(pod, "main").RestartCount > 0 })
	})
	t.Run("a startup probe holds the others back", func(t *testing.T) {
		t.Parallel()
		p := running(t, "startup", `
containers:
- {name: main, image: $BUSYBOX, command: [sh, -c, "sleep 4; touch /tmp/up; exec sleep 1000"],
   startupProbe: {exec: {command: [cat, /tmp/up]}, periodSeconds: 1, failureThreshold: 60},
   livenessProbe: {exec: {command: [cat, /tmp/up]}, periodSeconds: 1, failureThreshold: 1}}
`)
		equal(t, "restarts", status(p.get(), "main").RestartCount, 0)
	})
}

func TestInitContainersAndSidecars(t *testing.T) {
	t.Parallel()
	p := running(t, "init", `
volumes: [{name: shared, emptyDir: {}}]
initContainers:
- {name: first, image: $BUSYBOX, command: [sh, -c, "echo first >>/shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
- {name: sidecar, image: $BUSYBOX, restartPolicy: Always, volumeMounts: [{name: shared, mountPath: /shared}],
   command: [sh, -c, "echo sidecar >>/shared/order; touch /tmp/up; exec sleep 1000"],
   startupProbe: {exec: {command: [cat, /tmp/up]}, periodSeconds: 1}}
- {name: second, image: $BUSYBOX, command: [sh, -c, "echo second >>/shared/order"], volumeMounts: [{name: shared, mountPath: /shared}]}
containers:
- {name: main, image: $BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: shared, mountPath: /shared}]}
`)
	equal(t, "order", p.sh("main", "cat /shared/order"), "first\nsidecar\nsecond")
	equal(t, "sidecar runs", status(p.get(), "sidecar").State.Running != nil, true)
}

func TestRestartPolicies(t *testing.T) {
	t.Parallel()
	t.Run("Never", func(t *testing.T) {
		t.Parallel()
		p := manifest(t, "never", `
restartPolicy: Never
containers:
- {name: good, image: $BUSYBOX, command: ["true"]}
- {name: bad, image: $BUSYBOX, command: [sh, -c, "exit 7"]}
`)
		pod := p.await("the phase Failed", func(pod v1.Pod) bool { return pod.Status.Phase == v1.PodFailed })
		good, bad := status(pod, "good").State.Terminated, status(pod, "bad").State.Terminated
		equal(t, "good", good.Reason, "Completed")
		equal(t, "bad", bad.Reason, "Error")
		equal(t, "bad", bad.ExitCode, 7)
		if bad.StartedAt.IsZero() || bad.FinishedAt.Before(&bad.StartedAt) {
			t.Errorf("times of %+v", bad)
		}
	})
	t.Run("OnFailure", func(t *testing.T) {
		t.Parallel()
		p := manifest(t, "on-failure", `
restartPolicy: OnFailure
volumes: [{name: kept, emptyDir: {}}]
containers:
- {name: main, image: $BUSYBOX, command: [sh, -c, "[ -f /kept/x ] || { touch /kept/x; exit 3; }"], volumeMounts: [{name: kept, mountPath: /kept}]}
`)
		pod := p.await("the phase Succeeded", func(pod v1.Pod) bool { return pod.Status.Phase == v1.PodSucceeded })
		equal(t, "restarts", status(pod, "main").RestartCount, 1)
	})
	t.Run("Always, with a back-off", func(t *testing.T) {
		t.Parallel()
		p := manifest(t, "crash", `
containers:
- {name: main, image: $BUSYBOX, command: [sh, -c, "echo started; exit 1"]}
`)
		p.await("three restarts", func(pod v1.Pod) bool { return status(pod, "main").RestartCount >= 3 })
		p.await("CrashLoopBackOff", func(pod v1.Pod) bool {
			waiting := status(pod, "main").State.Waiting
			return waiting != nil && waiting.Reason == "CrashLoopBackOff"
		})
		equal(t, "log of the previous one", p.logs("main", "previous=true"), "started\n")
	})
}

func TestTermination(t *testing.T) {
	t.Parallel()
	t.Run("preStop, then TERM, in the grace period", func(t *testing.T) {
		t.Parallel()
		p := running(t, "graceful", `
terminationGracePeriodSeconds: 60
volumes: [{name: host, hostPath: {path: $DIR/graceful, type: DirectoryOrCreate}}]
containers:
- {name: main, image: $BUSYBOX, volumeMounts: [{name: host, mountPath: /host}],
   command: [sh, -c, "trap 'echo term >>/host/order; exit 0' TERM; while :; do sleep 0.1; done"],
   lifecycle: {postStart: {exec: {command: [sh, -c, "echo postStart >>/host/order"]}},
     preStop: {exec: {command: [sh, -c, "sleep 1; echo preStop >>/host/order"]}}}}
`)
		p.gone()
		equal(t, "order", file(t, "graceful/order"), "postStart\npreStop\nterm\n")
	})
	t.Run("KILL after it", func(t *testing.T) {
		t.Parallel()
		p := running(t, "deaf", `
terminationGracePeriodSeconds: 3
containers: [{name: main, image: $BUSYBOX, command: [sh, -c, "trap '' TERM; while :; do sleep 1; done"]}]
`)
		began := time.Now()
		p.gone()
		since(t, "the end", began, 3*time.Second)
	})
	t.Run("the image's or the pod's own signal", func(t *testing.T) {
		t.Parallel()
		// The first process has no handler for anything but this.
		p := running(t, "signal", `
os: {name: linux}
terminationGracePeriodSeconds: 60
volumes: [{name: host, hostPath: {path: $DIR/signal, type: DirectoryOrCreate}}]
containers:
- {name: main, image: $BUSYBOX, volumeMounts: [{name: host, mountPath: /host}], lifecycle: {stopSignal: SIGUSR1},
   command: [sh, -c, "trap 'echo usr1 >/host/got; exit 0' USR1; while :; do sleep 0.1; done"]}
`)
		began := time.Now()
		p.gone()
		if took := time.Since(began); took > 50*time.Second {
			t.Errorf("took the whole grace period: %s", took)
		}
		equal(t, "signal", file(t, "signal/got"), "usr1\n")
	})
}

func TestOutOfMemory(t *testing.T) {
	t.Parallel()
	p := manifest(t, "oom", `
restartPolicy: Never
containers:
- {name: main, image: $BUSYBOX, command: [sh, -c, "dd if=/dev/zero of=/dev/null bs=200M count=1"], resources: {limits: {memory: 32Mi}}}
`)
	how := p.ended("main")
	equal(t, "reason", how.Reason, "OOMKilled")
	equal(t, "exit code", how.ExitCode, 137)
}

func TestTerminationMessage(t *testing.T) {
	t.Parallel()
	p := manifest(t, "message", `
restartPolicy: Never
containers:
- {name: file, image: $BUSYBOX, command: [sh, -c, "echo -n last words >/dev/termination-log"]}
- {name: log, image: $BUSYBOX, command: [sh, -c, "echo from the log; exit 1"], terminationMessagePolicy: FallbackToLogsOnError}
- {name: other, image: $BUSYBOX, command: [sh, -c, "echo -n elsewhere >/tmp/why"], terminationMessagePath: /tmp/why}
`)
	equal(t, "file", p.ended("file").Message, "last words")
	equal(t, "log", strings.TrimSpace(p.ended("log").Message), "from the log")
	equal(t, "other", p.ended("other").Message, "elsewhere")
}

func TestAContainerThatCannotStart(t *testing.T) {
	t.Parallel()
	p := manifest(t, "cannot", `
containers:
- {name: command, image: $BUSYBOX, command: [/no/such/program]}
- {name: image, image: registry.k8s.io/no-such-image:1}
- {name: good, image: $BUSYBOX, command: [sleep, "1000"]}
`)
	pod := p.await("three states", func(pod v1.Pod) bool {
		return status(pod, "good").State.Running != nil && status(pod, "command").LastTerminationState.Terminated != nil &&
			status(pod, "image").State.Waiting != nil && status(pod, "image").State.Waiting.Reason == "ImagePullBackOff"
	})
	how := status(pod, "command").LastTerminationState.Terminated
	contains(t, "command", how.Message, "/no/such/program")
	equal(t, "reason", how.Reason, "StartError")
}
