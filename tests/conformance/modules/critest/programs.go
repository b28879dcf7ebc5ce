//go:build programs

// Names the programs that are built from this module, so that go.mod and go.sum cover them.
package critest

import (
	_ "sigs.k8s.io/cri-tools/cmd/crictl"
)
