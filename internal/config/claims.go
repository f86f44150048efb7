// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net"
	"net/netip"
	"path"
)

// claims remembers what on each machine is used, and by which key.
type claims struct {
	reader *reader
	shared bool // both nodes are on one machine, so their claims meet
	paths  []claim
	ports  []claim
}

type claim struct {
	node, key string
	value     string // a path, or a host
	port      string
}

// checkClaims refuses what two keys would both use on one machine. The nodes
// are taken to be on one when they have an IP address in common.
func (r *reader) checkClaims() {
	c := &claims{reader: r, shared: oneMachine(r.cfg.Nodes)}
	for i := range r.cfg.Nodes {
		node := &r.cfg.Nodes[i]
		c.claimNode(node)
		for j := range r.cfg.Services {
			for k := range r.cfg.Services[j].Volumes {
				c.claimVolume(node.Name, &r.cfg.Services[j].Volumes[k])
			}
		}
	}
}

func (c *claims) claimNode(node *Node) {
	key := "node." + node.Name
	c.path(node.Name, key+".state", node.State)
	c.path(node.Name, key+".run", node.ControlSocket())
	for _, a := range node.Address {
		c.port(node.Name, key+".address", a.String())
	}
	if listen, ok := c.reader.cfg.Console.Listen[node.Name]; ok {
		c.port(node.Name, "console.listen", listen)
	}
}

func (c *claims) claimVolume(node string, v *Volume) {
	key := volumeKey(v)
	c.path(node, key+".disk", v.Disk[node])
	c.path(node, key+".metadata", v.Metadata[node])
	c.path(node, key+".device", v.Device[node])
	if v.Mount != nil {
		c.path(node, key+".mount.at", v.Mount.At[node])
	}
	switch e := v.Export[node]; e.Network {
	case "unix":
		c.path(node, key+".export", e.Address)
	case "tcp":
		c.port(node, key+".export", e.Address)
	}
}

func (c *claims) path(node, key, value string) {
	if value == "" {
		return // not set, or already reported
	}
	value = path.Clean(value)
	for _, other := range c.paths {
		if c.meet(node, other) && value == other.value {
			c.refuse(node, key, value, other)
			return
		}
	}
	c.paths = append(c.paths, claim{node: node, key: key, value: value})
}

func (c *claims) port(node, key, address string) {
	host, port, _ := net.SplitHostPort(address)
	for _, other := range c.ports {
		sameHost := host == other.value || isWildcard(host) || isWildcard(other.value)
		sameAddress := key == other.key && host == other.value // checkAddresses reports it better
		if c.meet(node, other) && port == other.port && sameHost && !sameAddress {
			c.refuse(node, key, address, other)
			return
		}
	}
	c.ports = append(c.ports, claim{node: node, key: key, value: host, port: port})
}

// meet says whether a claim of node is on the machine of another claim.
func (c *claims) meet(node string, other claim) bool { return c.shared || node == other.node }

func (c *claims) refuse(node, key, value string, other claim) {
	hint := ""
	if node != other.node {
		hint = "the nodes have an address in common, so they are on one machine: put {node} into the value, or give each node its own"
	}
	if key == other.key {
		c.reader.fault(key, hint, "%s is used by %s and by %s", value, other.node, node)
		return
	}
	c.reader.fault(key, hint, "%s is already used by %s", value, other.key)
}

// oneMachine says whether the nodes share a machine: an IP address of both, or
// both on loopback. Nodes at the very same address and port are a mistake of
// another kind, which checkAddresses reports.
func oneMachine(nodes []Node) bool {
	shared := false
	if len(nodes) != 2 {
		return false
	}
	for _, a := range nodes[0].Address {
		for _, b := range nodes[1].Address {
			if a == b {
				return false
			}
			bothLoopback := a.Addr().IsLoopback() && b.Addr().IsLoopback()
			shared = shared || bothLoopback || a.Addr() == b.Addr()
		}
	}
	return shared
}

func isWildcard(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsUnspecified()
}
