package kubelet

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
)

// fetch asks something in a pod.
func fetch(t *testing.T, from string) string {
	t.Helper()
	answer, err := client.Get(from)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Error(err)
	}
	return string(body)
}

const sleeper = `
containers: [{name: main, image: $BUSYBOX, command: [sleep, "1000"]}]
`

func TestExec(t *testing.T) {
	t.Parallel()
	p := running(t, "exec", sleeper)
	for _, protocol := range []string{"spdy", "ws"} {
		out, complaint, code := p.session(protocol, "main", "", "sh", "-c", "echo out; echo err >&2; exit 5")
		equal(t, protocol+" stdout", out, "out\n")
		equal(t, protocol+" stderr", complaint, "err\n")
		equal(t, protocol+" exit code", code, 5)
		in := strings.Repeat("0123456789abcdef", 1<<16)
		out, _, _ = p.session(protocol, "main", in, "wc", "-c")
		equal(t, protocol+" 1 MiB in", strings.TrimSpace(out), fmt.Sprint(len(in)))
		out, _, _ = p.session(protocol, "main", in, "cat")
		equal(t, protocol+" 1 MiB in and out", out == in, true)
	}
}

// sizes of a terminal that changes once.
type sizes chan remotecommand.TerminalSize

func (s sizes) Next() *remotecommand.TerminalSize {
	size, ok := <-s
	if !ok {
		return nil
	}
	return &size
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	p := running(t, "terminal", sleeper)
	for _, protocol := range []string{"spdy", "ws"} {
		limit, cancel := context.WithTimeout(t.Context(), patience)
		queue := make(sizes, 1)
		queue <- remotecommand.TerminalSize{Width: 91, Height: 33}
		in, typed := io.Pipe()
		var out buffer
		query := url.Values{"command": {"sh"}, "input": {"1"}, "output": {"1"}, "tty": {"1"}}
		done := make(chan error, 1)
		go func() {
			done <- executor(t, protocol, "/exec/default/"+p.full()+"/main", query).StreamWithContext(limit,
				remotecommand.StreamOptions{Stdin: in, Stdout: &out, Tty: true, TerminalSizeQueue: queue})
		}()
		say := func(line, expected string) {
			within(t, patience, protocol+" "+expected, func() bool {
				fmt.Fprintln(typed, line)
				time.Sleep(100 * time.Millisecond)
				return strings.Contains(out.String(), expected)
			})
		}
		say("stty size", "33 91")
		queue <- remotecommand.TerminalSize{Width: 120, Height: 40}
		say("stty size", "40 120")
		fmt.Fprintln(typed, "exit 0")
		if err := <-done; err != nil {
			t.Errorf("%s: %v", protocol, err)
		}
		close(queue)
		typed.Close()
		cancel()
	}
}

func TestAttach(t *testing.T) {
	t.Parallel()
	p := running(t, "attach", `
containers: [{name: main, image: $BUSYBOX, stdin: true, command: [sh, -c, "while read -r line; do echo \"got $line\"; done; exec sleep 1000"]}]
`)
	for _, protocol := range []string{"spdy", "ws"} {
		limit, cancel := context.WithTimeout(t.Context(), patience)
		in, typed := io.Pipe()
		var out buffer
		done := make(chan error, 1)
		go func() {
			done <- executor(t, protocol, "/attach/default/"+p.full()+"/main", url.Values{"input": {"1"}, "output": {"1"}}).
				StreamWithContext(limit, remotecommand.StreamOptions{Stdin: in, Stdout: &out})
		}()
		fmt.Fprintln(typed, protocol)
		within(t, patience, "an echo", func() bool { return strings.Contains(out.String(), "got "+protocol) })
		cancel()
		typed.Close()
		<-done
		p.says("main", "got "+protocol)
	}
}

func TestPortForward(t *testing.T) {
	t.Parallel()
	p := running(t, "forward", `
containers: [{name: main, image: $HTTPD, readinessProbe: {tcpSocket: {port: 80}, periodSeconds: 1}}]
`)
	transport, upgrader, err := spdy.RoundTripperFor(kubelet)
	if err != nil {
		t.Fatal(err)
	}
	at := &url.URL{Scheme: "https", Host: address, Path: "/portForward/default/" + p.full()}
	dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, at)
	stop, up := make(chan struct{}), make(chan struct{})
	var said bytes.Buffer
	forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:80"}, stop, up, &said, &said)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- forwarder.ForwardPorts() }()
	select {
	case <-up:
	case err := <-done:
		t.Fatal(err)
	}
	ports, err := forwarder.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	local := net.JoinHostPort("127.0.0.1", fmt.Sprint(ports[0].Local))
	for range 20 {
		contains(t, "the page", fetch(t, "http://"+local+"/index.html"), "It works")
	}
	close(stop)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	p := running(t, "logs", `
containers:
- {name: main, image: $BUSYBOX, command: [sh, -c, "for i in $(seq 1 500); do echo line $i; done; while :; do sleep 0.2; echo tick; done"]}
`)
	p.says("main", "tick")
	lines := strings.Split(p.logs("main", ""), "\n")
	for i := range 500 {
		if lines[i] != fmt.Sprintf("line %d", i+1) {
			t.Fatalf("line %d is %q", i+1, lines[i])
		}
	}
	contains(t, "with times", p.logs("main", "timestamps=true&tailLines=1"), "Z tick")
	limit, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(limit, http.MethodGet, "https://"+address+"/containerLogs/default/"+p.full()+"/main?follow=true&tailLines=1", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	followed := make([]byte, len("tick\ntick\ntick\n"))
	if _, err := io.ReadFull(answer.Body, followed); err != nil {
		t.Errorf("follow: %v after %q", err, followed)
	}
}

func TestLogRotation(t *testing.T) {
	t.Parallel()
	// 40 lines of 1 KiB, ten times a second: 200 KiB are full after half a second, and it is looked at every 3 s.
	p := running(t, "rotation", `
containers:
- {name: main, image: $BUSYBOX, command: [sh, -c, "line=$(head -c 1000 /dev/zero | tr '\\0' x); i=0; while :; do n=0;
   while [ $n -lt 40 ]; do i=$((i+1)); n=$((n+1)); echo $i $line; done; sleep 0.1; done"]}
`)
	logs := filepath.Join(dir, "pod-logs", "default_"+p.full()+"_*", "main")
	within(t, patience, "two rotated logs", func() bool {
		rotated, _ := filepath.Glob(filepath.Join(logs, "0.log.*"))
		return len(rotated) >= 2
	})
	// The file that is written now begins where the one before it ended, and holds every number.
	within(t, patience, "whole lines without a gap", func() bool {
		paths, _ := filepath.Glob(filepath.Join(logs, "0.log.*"))
		var newest string
		for _, path := range paths {
			if !strings.HasSuffix(path, ".gz") && !strings.HasSuffix(path, ".tmp") && path > newest {
				newest = path
			}
		}
		if newest == "" {
			return false
		}
		content, err := os.ReadFile(newest)
		if err != nil {
			return false
		}
		after, err := os.ReadFile(filepath.Join(filepath.Dir(newest), "0.log"))
		if err != nil || len(after) == 0 || bytes.Count(after, []byte("\n")) < 2 {
			return false
		}
		if _, err := os.Stat(newest); err != nil {
			// Rotated once more meanwhile.
			return false
		}
		previous := 0
		for _, line := range strings.Split(strings.TrimSpace(string(content)+string(after[:bytes.LastIndexByte(after, '\n')])), "\n") {
			fields := strings.SplitN(line, " ", 5)
			var number int
			if len(fields) != 5 {
				t.Fatalf("a torn line: %q", line)
			}
			if _, err := fmt.Sscan(fields[3], &number); err != nil || len(fields[4]) != 1000 {
				t.Fatalf("a torn line: %q", line)
			}
			if previous != 0 && number != previous+1 {
				t.Fatalf("%d follows %d", number, previous)
			}
			previous = number
		}
		return true
	})
}
