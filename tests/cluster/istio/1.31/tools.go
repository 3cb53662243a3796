//go:build tools

// Package tools names the Istio programs that the test cluster runs, so that
// go.mod and go.sum pin every source they are compiled from.
package tools

import (
	_ "istio.io/istio/istioctl/cmd/istioctl"
	_ "istio.io/istio/pilot/cmd/pilot-agent"
	_ "istio.io/istio/pilot/cmd/pilot-discovery"
)
