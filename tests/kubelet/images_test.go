package kubelet

import (
	"os"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	cri "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// For the registry that asks who it is; run.sh has the provider.
const credentialConfig = `
apiVersion: kubelet.config.k8s.io/v1
kind: CredentialProviderConfig
providers:
- {name: ring-provider, matchImages: ["private.ring.test"], defaultCacheDuration: 0s, apiVersion: credentialprovider.kubelet.k8s.io/v1}
`

// By the pattern in configs.sh.
const pinned = "registry.k8s.io/pause:3.10.2"

func TestPrivateRegistry(t *testing.T) {
	t.Parallel()
	// The kubelet asks its provider, and hands what that says to the runtime.
	running(t, "private", `
containers: [{name: main, image: $PRIVATE, command: [sleep, "1000"]}]
`)
	if _, err := os.Stat(dir + "/asked"); err != nil {
		t.Errorf("the provider was not asked: %v", err)
	}
}

func TestPullPolicies(t *testing.T) {
	t.Parallel()
	present := "gcr.io/k8s-staging-cri-tools/test-image-user-uid:latest"
	p := manifest(t, "never-pull", `
containers: [{name: main, image: `+present+`, imagePullPolicy: Never, command: [sleep, "1000"]}]
`)
	p.await("ErrImageNeverPull", func(pod v1.Pod) bool {
		waiting := status(pod, "main").State.Waiting
		return waiting != nil && waiting.Reason == "ErrImageNeverPull"
	})
	if _, err := images.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: present}}); err != nil {
		t.Fatal(err)
	}
	p.await("readiness", ready)
	equal(t, "the image's user", p.sh("main", "id -u"), "1002")
	running(t, "always-pull", `
containers: [{name: main, image: $BUSYBOX, imagePullPolicy: Always, command: [sleep, "1000"]}]
`)
}

// What nothing runs of goes when the disk is fuller than it may be, which it always is here. Before a soak, since it takes the
// kubelet five minutes.
func TestImageGarbageCollection(t *testing.T) {
	if soak == "" {
		t.Skip("SOAK=30m plays it")
	}
	running(t, "keeps", sleeper)
	unused := "gcr.io/k8s-staging-cri-tools/test-image-user-uid:latest"
	for _, name := range []string{unused, pinned} {
		if _, err := images.PullImage(t.Context(), &cri.PullImageRequest{Image: &cri.ImageSpec{Image: name}}); err != nil {
			t.Fatal(err)
		}
	}
	has := func(name string) bool {
		answer, err := images.ImageStatus(t.Context(), &cri.ImageStatusRequest{Image: &cri.ImageSpec{Image: name}})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Image != nil
	}
	t.Cleanup(func() { reconfigure(t, nil) })
	reconfigure(t, map[string]any{"imageGCHighThresholdPercent": 1, "imageGCLowThresholdPercent": 0, "imageMinimumGCAge": "1ms"})
	// The first time that it looks is too early.
	within(t, 6*time.Minute, "the end of "+unused, func() bool { return !has(unused) })
	equal(t, "the image that is used is there", has(names.Replace("$BUSYBOX")), true)
	if subject == "cricket" {
		equal(t, "the image that is pinned is there", has(pinned), true)
	}
}
