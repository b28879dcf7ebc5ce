package kubelet

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// file below the ring's directory.
func file(t *testing.T, name string) string {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Error(err)
	}
	return string(content)
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	of := func(p *pod, name, kind string) string { return p.sh(name, "readlink /proc/self/ns/"+kind) }
	host := func(kind string) string {
		link, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		return link
	}
	two := `
containers:
- {name: one, image: $BUSYBOX, command: [sleep, "1000"]}
- {name: two, image: $BUSYBOX, command: [sleep, "1001"]}
`
	t.Run("of its own", func(t *testing.T) {
		t.Parallel()
		p := running(t, "own", two)
		for _, kind := range []string{"net", "ipc", "uts"} {
			equal(t, kind, of(p, "one", kind), of(p, "two", kind))
		}
		for _, kind := range []string{"net", "ipc", "uts", "pid", "mnt"} {
			equal(t, kind+" of the host", of(p, "one", kind) == host(kind), false)
		}
		equal(t, "pid shared", of(p, "one", "pid") == of(p, "two", "pid"), false)
		equal(t, "first process", p.sh("one", "cat /proc/1/comm"), "sleep")
		equal(t, "pod IP", p.get().Status.PodIP, p.sh("one", "hostname -i | cut -d' ' -f1"))
	})
	t.Run("shareProcessNamespace", func(t *testing.T) {
		t.Parallel()
		p := running(t, "shared-pid", "shareProcessNamespace: true"+two)
		equal(t, "pid", of(p, "one", "pid"), of(p, "two", "pid"))
		contains(t, "processes", p.sh("two", "ps -o args"), "sleep 1000", "sleep 1001")
	})
	t.Run("of the host", func(t *testing.T) {
		t.Parallel()
		p := running(t, "host", "hostNetwork: true\nhostPID: true\nhostIPC: true"+two)
		for _, kind := range []string{"net", "ipc", "uts", "pid"} {
			equal(t, kind, of(p, "one", kind), host(kind))
		}
	})
}

func TestVolumes(t *testing.T) {
	t.Parallel()
	p := running(t, "volumes", `
volumes:
- {name: disk, emptyDir: {}}
- {name: memory, emptyDir: {medium: Memory, sizeLimit: 8Mi}}
- {name: host, hostPath: {path: $DIR/volumes/a, type: DirectoryOrCreate}}
- {name: info, downwardAPI: {items: [{path: name, fieldRef: {fieldPath: metadata.name}}, {path: labels, fieldRef: {fieldPath: metadata.labels}}]}}
- {name: image, image: {reference: $HTTPD}}
containers:
- name: main
  image: $BUSYBOX
  command: [sleep, "1000"]
  env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}, {name: LIMIT, valueFrom: {resourceFieldRef: {resource: limits.memory}}}]
  resources: {limits: {memory: 64Mi}}
  volumeMounts:
  - {name: disk, mountPath: /disk}
  - {name: memory, mountPath: /memory}
  - {name: host, mountPath: /host}
  - {name: host, mountPath: /sub, subPath: inner}
  - {name: host, mountPath: /read-only, readOnly: true}
  - {name: info, mountPath: /info}
  - {name: image, mountPath: /image}
- name: other
  image: $BUSYBOX
  command: [sleep, "1000"]
  volumeMounts: [{name: disk, mountPath: /disk}, {name: memory, mountPath: /memory}]
`)
	p.sh("main", "echo disk >/disk/x; echo memory >/memory/x; echo host >/host/x; echo sub >/sub/y")
	equal(t, "emptyDir", p.sh("other", "cat /disk/x /memory/x"), "disk\nmemory")
	contains(t, "medium", p.sh("main", "grep ' /memory ' /proc/mounts"), "tmpfs", "size=8192k")
	equal(t, "hostPath", file(t, "volumes/a/x"), "host\n")
	equal(t, "subPath", file(t, "volumes/a/inner/y"), "sub\n")
	equal(t, "readOnly", p.sh("main", "echo no >/read-only/x 2>/dev/null || cat /read-only/x"), "host")
	equal(t, "downwardAPI", p.sh("main", "cat /info/name"), p.full())
	contains(t, "downwardAPI", p.sh("main", "cat /info/labels"), `ring="volumes"`)
	contains(t, "image volume", p.sh("main", "cat /image/www/index.html"), "It works")
	equal(t, "image volume is read-only", p.sh("main", "touch /image/x 2>/dev/null || echo refused"), "refused")
	equal(t, "environment", p.sh("main", "echo $NODE $LIMIT"), nodeName+" 67108864")
}

func TestHugePages(t *testing.T) {
	t.Parallel()
	free, _ := os.ReadFile("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages")
	if count, _ := strconv.Atoi(strings.TrimSpace(string(free))); count < 2 {
		t.Skip("the kernel has no huge pages to give")
	}
	p := running(t, "huge", `
volumes:
- {name: huge, emptyDir: {medium: HugePages}}
- {name: busybox, hostPath: {path: /bin/busybox}}
containers:
- name: main
  image: $BUSYBOX
  command: [sleep, "1000"]
  resources: {limits: {cpu: 100m, memory: 32Mi, hugepages-2Mi: 2Mi}}
  volumeMounts: [{name: huge, mountPath: /huge}, {name: busybox, mountPath: /busybox}]
- name: without
  image: $BUSYBOX
  command: [sleep, "1000"]
  resources: {limits: {cpu: 100m, memory: 32Mi}}
  volumeMounts: [{name: huge, mountPath: /huge}, {name: busybox, mountPath: /busybox}]
`)
	contains(t, "medium", p.sh("main", "grep ' /huge ' /proc/mounts"), "hugetlbfs", "pagesize=2M")
	take := func(container, file string) string {
		return p.sh(container, "/busybox fallocate -l 2097152 /huge/"+file+" 2>&1 && echo taken || true")
	}
	const refused = "No space left on device"
	contains(t, "with a limit of nothing", take("without", "a"), refused)
	equal(t, "what its limit gives", take("main", "b"), "taken")
	contains(t, "more than its limit", take("main", "c"), refused)
	p.sh("main", "rm /huge/b")
	equal(t, "after it was given back", take("main", "d"), "taken")
}

func TestPropagation(t *testing.T) {
	t.Parallel()
	p := running(t, "propagation", `
volumes: [{name: host, hostPath: {path: $DIR/propagation, type: DirectoryOrCreate}}]
containers:
- {name: both, image: $BUSYBOX, command: [sleep, "1000"], securityContext: {privileged: true},
   volumeMounts: [{name: host, mountPath: /host, mountPropagation: Bidirectional}]}
- {name: in, image: $BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: host, mountPath: /host, mountPropagation: HostToContainer}]}
- {name: none, image: $BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: host, mountPath: /host}]}
`)
	p.sh("both", "mkdir /host/m && mount -t tmpfs tmpfs /host/m && echo seen >/host/m/x")
	equal(t, "on the node", file(t, "propagation/m/x"), "seen\n")
	equal(t, "HostToContainer", p.sh("in", "cat /host/m/x"), "seen")
	equal(t, "None", p.sh("none", "cat /host/m/x 2>/dev/null || echo unseen"), "unseen")
	p.sh("both", "umount /host/m")
}

// Below a mount that is read-only, others are not: a kubelet without an API server asks for no more.
func TestReadOnlyNotRecursively(t *testing.T) {
	t.Parallel()
	at := filepath.Join(dir, "rro")
	if err := os.MkdirAll(at+"/inner", 0o755); err != nil {
		t.Fatal(err)
	}
	tmpfs(t, at+"/inner")
	p := running(t, "read-only", `
volumes: [{name: host, hostPath: {path: $DIR/rro}}]
containers:
- {name: main, image: $BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: host, mountPath: /host, readOnly: true}]}
`)
	equal(t, "outer", p.sh("main", "touch /host/x 2>/dev/null || echo refused"), "refused")
	p.sh("main", "touch /host/inner/x")
}

// handler is what the runtime says of itself.
func handler(t *testing.T, name string) *cri.RuntimeHandlerFeatures {
	t.Helper()
	answer, err := runtime.Status(t.Context(), &cri.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, found := range answer.RuntimeHandlers {
		if found.Name == name {
			return found.Features
		}
	}
	return nil
}

// cgroups of a container, of every hierarchy, by the file that is asked for.
func inCgroup(t *testing.T, id, controller, name string) string {
	t.Helper()
	var found string
	root := filepath.Join("/sys/fs/cgroup", controller, cgroupRoot)
	_ = filepath.Walk(root, func(path string, info os.FileInfo, err error) error {
		if err == nil && info.IsDir() && strings.HasSuffix(path, id) {
			content, err := os.ReadFile(filepath.Join(path, name))
			if err == nil {
				found = strings.TrimSpace(string(content))
			}
		}
		return nil
	})
	if found == "" {
		t.Errorf("no %s of %s below %s", name, id, root)
	}
	return found
}

// id of a container as the runtime knows it.
func id(pod v1.Pod, name string) string {
	_, bare, _ := strings.Cut(status(pod, name).ContainerID, "://")
	return bare
}

func TestResources(t *testing.T) {
	t.Parallel()
	p := running(t, "resources", `
containers:
- {name: limited, image: $BUSYBOX, command: [sleep, "1000"], resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 500m, memory: 64Mi}}}
- {name: free, image: $BUSYBOX, command: [sleep, "1000"]}
`)
	pod := p.get()
	equal(t, "QoS", pod.Status.QOSClass, v1.PodQOSBurstable)
	limited := id(pod, "limited")
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.controllers"); err == nil {
		equal(t, "memory", inCgroup(t, limited, "", "memory.max"), "67108864")
		equal(t, "CPU", inCgroup(t, limited, "", "cpu.max"), "50000 100000")
	} else {
		equal(t, "memory", inCgroup(t, limited, "memory", "memory.limit_in_bytes"), "67108864")
		equal(t, "CPU", inCgroup(t, limited, "cpu", "cpu.cfs_quota_us"), "50000")
		equal(t, "CPU shares", inCgroup(t, limited, "cpu", "cpu.shares"), "102")
	}
	reported := status(pod, "limited").Resources
	if reported == nil || reported.Limits.Memory().Value() != 64<<20 {
		t.Errorf("resources reported: %+v", reported)
	}
	guaranteed := running(t, "guaranteed", `
containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"], resources: {limits: {cpu: 100m, memory: 32Mi}}}]
`)
	equal(t, "QoS", guaranteed.get().Status.QOSClass, v1.PodQOSGuaranteed)
}

func TestPodLevelResources(t *testing.T) {
	t.Parallel()
	p := running(t, "pod-level", `
resources: {limits: {memory: 64Mi, cpu: 300m}, requests: {memory: 64Mi, cpu: 300m}}
containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]
`)
	equal(t, "QoS", p.get().Status.QOSClass, v1.PodQOSGuaranteed)
}

func TestSecurityContext(t *testing.T) {
	t.Parallel()
	p := running(t, "security", `
securityContext: {runAsUser: 1000, runAsGroup: 2000, supplementalGroups: [3000], fsGroup: 4000,
  sysctls: [{name: kernel.shm_rmid_forced, value: "1"}, {name: kernel.msgmax, value: "65536"}], seccompProfile: {type: RuntimeDefault}}
volumes: [{name: disk, emptyDir: {}}]
containers:
- {name: plain, image: $BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: disk, mountPath: /disk}]}
- {name: tight, image: $BUSYBOX, command: [sleep, "1000"], securityContext: {runAsUser: 1001, runAsNonRoot: true,
   readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}
- {name: more, image: $BUSYBOX, command: [sleep, "1000"], securityContext: {runAsUser: 0, capabilities: {add: [SYS_TIME], drop: [KILL]}}}
- {name: privileged, image: $BUSYBOX, command: [sleep, "1000"], securityContext: {runAsUser: 0, privileged: true}}
- {name: unmasked, image: $BUSYBOX, command: [sleep, "1000"], securityContext: {runAsUser: 0, seccompProfile: {type: Unconfined}}}
`)
	of := func(name, field string) string {
		return p.sh(name, "grep '^"+field+"' /proc/self/status | cut -f2-")
	}
	equal(t, "uid, gid", p.sh("plain", "echo $(id -u) $(id -g)"), "1000 2000")
	contains(t, "groups", p.sh("plain", "id -G"), "2000", "3000", "4000")
	equal(t, "fsGroup", p.sh("plain", "stat -c %g /disk"), "4000")
	equal(t, "sysctls", p.sh("plain", "cat /proc/sys/kernel/shm_rmid_forced /proc/sys/kernel/msgmax"), "1\n65536")
	equal(t, "seccomp", of("plain", "Seccomp:"), "2")
	equal(t, "seccomp", of("unmasked", "Seccomp:"), "0")
	equal(t, "uid", p.sh("tight", "id -u"), "1001")
	equal(t, "no_new_privs", of("tight", "NoNewPrivs:"), "1")
	equal(t, "capabilities", of("tight", "CapBnd:"), "0000000000000000")
	equal(t, "root", p.sh("tight", "touch /x 2>/dev/null || echo read-only"), "read-only")
	// SYS_TIME is 25, KILL 5: added to and taken from the 14 defaults, a80425fb.
	equal(t, "capabilities", of("more", "CapEff:"), "00000000aa0425db")
	equal(t, "devices", p.sh("privileged", "ls /dev | wc -l") == p.sh("plain", "ls /dev | wc -l"), false)
	equal(t, "masked", p.sh("more", "cat /proc/kcore 2>/dev/null | head -c1 | wc -c"), "0")
}

func TestNonRootIsHeld(t *testing.T) {
	t.Parallel()
	p := manifest(t, "non-root", `
securityContext: {runAsNonRoot: true}
containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]
`)
	p.await("CreateContainerConfigError", func(pod v1.Pod) bool {
		waiting := status(pod, "main").State.Waiting
		return waiting != nil && waiting.Reason == "CreateContainerConfigError"
	})
}

func TestUserNamespace(t *testing.T) {
	t.Parallel()
	spec := `
hostUsers: false
volumes: [{name: disk, emptyDir: {}}]
containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"], volumeMounts: [{name: disk, mountPath: /disk}]}]
`
	if handler(t, "").GetUserNamespaces() {
		p := running(t, "users", spec)
		equal(t, "mapped", strings.HasPrefix(strings.Join(strings.Fields(p.sh("main", "cat /proc/self/uid_map")), " "), "0 0 "), false)
		p.sh("main", "touch /disk/x")
		equal(t, "owner", p.sh("main", "stat -c %u /disk/x"), "0")
		return
	}
	// The kubelet does not ask a runtime that says it cannot; the pod waits.
	p := manifest(t, "users", spec)
	within(t, patience, "the kubelet's refusal", func() bool {
		for _, line := range strings.Split(text(filepath.Join(report, "kubelet.log")), "\n") {
			if strings.Contains(line, p.full()) && strings.Contains(line, "support user namespaces") {
				return true
			}
		}
		return false
	})
	equal(t, "runs", p.get().Status.Phase == v1.PodRunning, false)
}

func TestNames(t *testing.T) {
	t.Parallel()
	p := running(t, "names", `
hostname: other
subdomain: sub
dnsPolicy: None
dnsConfig: {nameservers: [10.1.2.3], searches: [a.test, b.test], options: [{name: ndots, value: "3"}]}
hostAliases: [{ip: 10.9.9.9, hostnames: [alias.test]}]
containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]
`)
	equal(t, "hostname", p.sh("main", "hostname"), "other")
	contains(t, "hosts", p.sh("main", "cat /etc/hosts"), "10.9.9.9\talias.test", "other.sub.default.svc.ring.test")
	equal(t, "resolv.conf", p.sh("main", "cat /etc/resolv.conf"), "search a.test b.test\nnameserver 10.1.2.3\noptions ndots:3")
	node := running(t, "names-host", `
hostNetwork: true
containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]
`)
	name, _ := os.Hostname()
	equal(t, "the node's name", node.sh("main", "hostname"), name)
	contains(t, "the node's resolver", node.sh("main", "cat /etc/resolv.conf"), "nameserver 10.215.0.1")
}

func TestHostPorts(t *testing.T) {
	t.Parallel()
	p := running(t, "ports", `
containers: [{name: main, image: $HTTPD, ports: [{containerPort: 80, hostPort: 18080, protocol: TCP}], readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}]
`)
	// From the node itself by the pod's address, from another pod by the node's.
	body := fetch(t, "http://"+p.get().Status.PodIP+"/index.html")
	contains(t, "by the pod's address", body, "It works")
	other := running(t, "ports-client", `
containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]
`)
	contains(t, "by the node's port", other.sh("main", "wget -qO- http://10.215.0.1:18080/index.html"), "It works")
}
