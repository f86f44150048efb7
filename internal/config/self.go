// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"os"
	"strings"
)

// NodeVariable is the environment variable that names this machine's node.
const NodeVariable = "TWINBD_NODE"

// SelfName returns the name of the node that this machine is: flag when it is
// not empty, else the environment's, else the host name up to its first dot, in
// lower case.
func SelfName(flag string) (string, error) {
	if flag != "" {
		return flag, nil
	}
	if name := os.Getenv(NodeVariable); name != "" {
		return name, nil
	}
	host, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("read host name: %w; hint: give --node NAME", err)
	}
	host, _, _ = strings.Cut(host, ".")
	return strings.ToLower(host), nil
}

// Self returns the node that this machine is, flag being what --node says.
func (c *Config) Self(flag string) (*Node, error) {
	name, err := SelfName(flag)
	if err != nil {
		return nil, err
	}
	if node := c.Node(name); node != nil {
		return node, nil
	}
	nodes := strings.Join(c.NodeNames(), " and ")
	return nil, fmt.Errorf("this node would be %q, but the configuration has %s; hint: give --node NAME or set %s", name, nodes, NodeVariable)
}
