// Command dns is the test cluster's name server: CoreDNS with the three
// plugins that a one-node cluster needs. Sidecars do not become ready without
// it, since their agent looks istiod up by name.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"
)

// The order is that of the handler chain: a plugin sees a query before those after it.
func init() { dnsserver.Directives = []string{"errors", "cache", "kubernetes"} }

func main() { coremain.Run() }
