//go:build programs

// Names the program that is built from this module, so that go.mod and go.sum cover it.
package runc

import _ "github.com/opencontainers/runc"
