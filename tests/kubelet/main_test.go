package kubelet

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// What run.sh has started, and where it wants what is left.
var (
	dir        = os.Getenv("RING_DIR")
	report     = os.Getenv("RING_REPORT")
	bin        = os.Getenv("RING_BIN")
	socket     = os.Getenv("RING_SOCKET")
	containerd = os.Getenv("RING_CONTAINERD")
	subject    = os.Getenv("RING_SUBJECT")
	cgroupRoot = os.Getenv("RING_CGROUP")
	// How to reach the API server, if there is one.
	cluster = os.Getenv("RING_CLUSTER")
	// How long pods come and go, as "30m".
	soak = os.Getenv("SOAK")
)

const (
	nodeName = "ring"
	address  = "127.0.0.1:10250"
	// Long enough for a slow machine; a scenario that needs it has failed.
	patience = 2 * time.Minute
)

// The CRI itself, to see what the kubelet does not show.
var (
	runtime cri.RuntimeServiceClient
	images  cri.ImageServiceClient
)

func TestMain(m *testing.M) {
	flag.Parse()
	if dir == "" {
		fmt.Fprintln(os.Stderr, "run.sh starts this")
		os.Exit(2)
	}
	os.Exit(run(m))
}

func run(m *testing.M) int {
	connection, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	runtime, images = cri.NewRuntimeServiceClient(connection), cri.NewImageServiceClient(connection)
	defer stopAll()
	if err := startKubelet(nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	status := m.Run()
	// After all scenarios, those that run beside each other too.
	began := time.Now()
	left := leftovers()
	verdict := "PASS"
	if len(left) > 0 {
		verdict, status = "FAIL", 1
		fmt.Println(strings.Join(left, "\n"))
	}
	fmt.Printf("--- %s: NothingIsLeft (%.2fs)\n", verdict, time.Since(began).Seconds())
	return status
}

// gates of features that are not on by themselves, and more of them.
func gates(more ...string) map[string]bool {
	all := map[string]bool{}
	for _, gate := range append(more, "KubeletCrashLoopBackOffMax", "ContainerStopSignals") {
		all[gate] = true
	}
	return all
}

// Daemons that this program started, by the file of their configuration.
var started = map[string]*exec.Cmd{}

func stopAll() {
	for _, command := range started {
		_ = command.Process.Signal(syscall.SIGTERM)
		_ = command.Wait()
	}
}

// startKubelet writes a configuration, with what `more` changes in it, and returns once the kubelet answers.
func startKubelet(more map[string]any) error {
	config := map[string]any{
		"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
		"address": "127.0.0.1", "healthzPort": 0, "registerNode": false, "enableServer": true,
		"authentication": map[string]any{"anonymous": map[string]any{"enabled": true}, "webhook": map[string]any{"enabled": false}},
		"authorization":  map[string]any{"mode": "AlwaysAllow"},
		"staticPodPath":  filepath.Join(dir, "manifests"), "fileCheckFrequency": "1s", "syncFrequency": "5s",
		"enableControllerAttachDetach": false, "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupRoot": cgroupRoot,
		"failSwapOn": false, "makeIPTablesUtilChains": false, "localStorageCapacityIsolation": true,
		"evictionHard":                map[string]any{"memory.available": "10Mi", "nodefs.available": "1%", "imagefs.available": "1%", "nodefs.inodesFree": "1%"},
		"imageGCHighThresholdPercent": 100, "volumeStatsAggPeriod": "10s", "volumePluginDir": filepath.Join(dir, "plugins"),
		"containerLogMaxSize": "200Ki", "containerLogMaxFiles": 3, "containerLogMonitorInterval": "3s",
		"crashLoopBackOff": map[string]any{"maxContainerRestartPeriod": "5s"}, "featureGates": gates(),
		"podLogsDir": filepath.Join(dir, "pod-logs"), "containerRuntimeEndpoint": "unix://" + socket, "clusterDomain": "ring.test",
		"shutdownGracePeriod": "0s", "serializeImagePulls": false, "resolvConf": filepath.Join(dir, "resolv.conf"),
		"allowedUnsafeSysctls": []string{"kernel.msg*"}, "oomScoreAdj": 0,
	}
	if cluster != "" {
		config["registerNode"], config["address"] = true, "0.0.0.0"
	}
	for key, value := range more {
		config[key] = value
	}
	bytes, err := json.Marshal(config)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "kubelet.json")
	for name, content := range map[string]string{path: string(bytes), filepath.Join(dir, "resolv.conf"): "nameserver 10.215.0.1\n",
		filepath.Join(dir, "credentials.yaml"): credentialConfig} {
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "manifests"), 0o755); err != nil {
		return err
	}
	arguments := []string{"--config=" + path,
		"--root-dir=" + filepath.Join(dir, "kubelet"), "--cert-dir=" + filepath.Join(dir, "pki"), "--containerd=" + containerd,
		"--hostname-override=" + nodeName, "--v=3", "--image-credential-provider-config=" + filepath.Join(dir, "credentials.yaml"),
		"--image-credential-provider-bin-dir=" + filepath.Join(dir, "providers")}
	if cluster != "" {
		arguments = append(arguments, "--kubeconfig="+cluster, "--node-ip="+os.Getenv("RING_NODE_IP"))
	}
	if err := start(path, filepath.Join(report, "kubelet.log"), filepath.Join(bin, "kubelet"), arguments...); err != nil {
		return err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(200 * time.Millisecond) {
		if body, err := get("/healthz"); err == nil && body == "ok" {
			return nil
		}
	}
	return fmt.Errorf("the kubelet does not get healthy: see %s/kubelet.log", report)
}

// start runs a daemon whose log is appended to.
func start(config, log, program string, arguments ...string) error {
	file, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	defer file.Close()
	command := exec.Command(program, arguments...)
	command.Stdout, command.Stderr = file, file
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := command.Start(); err != nil {
		return err
	}
	started[config] = command
	return nil
}

// daemon is the process whose command line names the file, and that command line.
func daemon(config string) (int, []string) {
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range all {
		bytes, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(bytes), config) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && pid != os.Getpid() {
			return pid, strings.Split(strings.TrimRight(string(bytes), "\x00"), "\x00")
		}
	}
	return 0, nil
}

// stop sends the signal to the daemon with this configuration, and returns its command line once it has ended.
func stop(t *testing.T, config string, signal syscall.Signal) []string {
	t.Helper()
	pid, arguments := daemon(config)
	if pid == 0 {
		t.Fatalf("no process with %s", config)
	}
	if err := syscall.Kill(pid, signal); err != nil {
		t.Fatal(err)
	}
	if command := started[config]; command != nil && command.Process.Pid == pid {
		_ = command.Wait()
		delete(started, config)
	}
	within(t, patience, "the end of "+config, func() bool {
		state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || bytes.Contains(state, []byte(") Z "))
	})
	return arguments
}

// restart ends the daemon with this configuration and starts it anew.
func restart(t *testing.T, name string, signal syscall.Signal) {
	t.Helper()
	config := filepath.Join(dir, name+".toml")
	arguments := stop(t, config, signal)
	if err := start(config, filepath.Join(report, name+".log"), arguments[0], arguments[1:]...); err != nil {
		t.Fatal(err)
	}
	within(t, patience, "an answer of the runtime", func() bool {
		_, err := runtime.Version(t.Context(), &cri.VersionRequest{})
		return err == nil
	})
}

// within waits for what must happen.
func within(t *testing.T, limit time.Duration, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(limit); !is(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come within %s", what, limit)
		}
	}
}

var client = http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}, Timeout: 30 * time.Second}

// get asks the kubelet's own API.
func get(path string) (string, error) {
	answer, err := client.Get("https://" + address + path)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %s", path, answer.Status, body)
	}
	return string(body), err
}
