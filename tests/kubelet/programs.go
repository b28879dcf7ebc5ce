//go:build programs

// Package kubelet keeps the program that is built beside the scenarios among the requirements.
package kubelet

import _ "k8s.io/kubernetes/cmd/kubelet"
