// SPDX-License-Identifier: Apache-2.0

package config

import (
	"net/netip"
	"path"
	"time"
)

// DefaultFile is read when nothing else is said.
const DefaultFile = "/etc/twinbd/twinbd.toml"

// Defaults of the values that a file may leave out.
const (
	DefaultState       = "/var/lib/twinbd"
	DefaultRun         = "/run/twinbd"
	DefaultPeerTimeout = 5 * time.Second
	DefaultDiskTimeout = 10 * time.Second
	DefaultIntents     = 4096
	DefaultRegion      = 1 << 20
)

// BlockSize is what volume sizes are multiples of, in bytes.
const BlockSize = 4096

// Config is a checked configuration. It is not changed after Load, so it may be
// shared. Nodes, services and volumes are in the order of their names.
type Config struct {
	Cluster  string    `toml:"cluster"`
	Nodes    []Node    `toml:"node"` // exactly two
	Witness  Witness   `toml:"witness"`
	TLS      TLS       `toml:"tls"`
	Console  Console   `toml:"console"`
	Services []Service `toml:"service"`
}

// Node is one of the two servers.
type Node struct {
	Name    string           `toml:"-"`
	Address []netip.AddrPort `toml:"address"` // every path to the node, the preferred one first; at least one
	State   string           `toml:"state"`   // directory of what must outlive a reboot
	Run     string           `toml:"run"`     // directory of sockets
}

// ControlSocket is where the node answers the commands of its own machine.
func (n *Node) ControlSocket() string { return path.Join(n.Run, "twinbd.sock") }

// Witness says what decides between two nodes that do not hear each other. At
// most one of its fields is set.
type Witness struct {
	Address []string     `toml:"address"` // HOST:PORT, every path to the witness
	Ping    []netip.Addr `toml:"ping"`    // a router, for users who have no third machine
}

// TLS says how nodes, witness and administrators know each other.
type TLS struct {
	Dir      string `toml:"dir"`      // the keys made by `twinbd init`; empty with Insecure
	Insecure bool   `toml:"insecure"` // a lab without keys
}

// Console is the HTTPS side: console, health URL, metrics and API.
type Console struct {
	Listen map[string]string `toml:"listen"` // IP:PORT by node; nil: no console
}

// Service is what fails over as one.
type Service struct {
	Name        string        `toml:"-"`
	Prefer      string        `toml:"prefer"`   // node where it should live, or empty
	Failback    Failback      `toml:"failback"` // what happens when the preferred node is back
	Pace        Pace          `toml:"pace"`
	Lone        Lone          `toml:"lone"`
	IP          []VirtualIP   `toml:"ip"`
	Fence       string        `toml:"fence"` // command; exit 0: the peer is certainly off
	Start       []string      `toml:"start"` // commands, in order
	Stop        []string      `toml:"stop"`
	Check       *Check        `toml:"check"`        // nil: none
	PeerTimeout time.Duration `toml:"peer-timeout"` // a peer that acknowledges nothing for so long is lost
	DiskTimeout time.Duration `toml:"disk-timeout"` // a disk that answers nothing for so long has failed
	Volumes     []Volume      `toml:"volume"`       // at least one
}

// Failback says what happens when the preferred node is up to date again.
type Failback string

// The kinds of failback.
const (
	FailbackManual Failback = "manual" // the operator switches
	FailbackAuto   Failback = "auto"   // the service returns by itself
)

// Lone says what a primary does that reaches nobody and holds no promise.
type Lone string

// The ways of being lone.
const (
	LoneFreeze   Lone = "freeze"   // clients wait
	LoneContinue Lone = "continue" // serve on; the nodes may split
)

// Pace is how quickly a silent peer is noticed. Timeout is at least three times
// Heartbeat.
type Pace struct {
	Heartbeat time.Duration `toml:"heartbeat"`
	Timeout   time.Duration `toml:"timeout"`
}

// The paces that have names.
var paces = map[string]Pace{
	"fast":   {100 * time.Millisecond, time.Second},
	"normal": {250 * time.Millisecond, 3 * time.Second},
	"safe":   {700 * time.Millisecond, 30 * time.Second},
}

// Check is the application's health check.
type Check struct {
	Command  string        `toml:"command"`
	Every    time.Duration `toml:"every"`
	Timeout  time.Duration `toml:"timeout"`
	Failures int           `toml:"failures"` // in a row, at least 1, before something is done
	Restarts int           `toml:"restarts"` // tries on this node before the service switches
}

// Volume is one replicated block device. The maps are by node name and hold
// both nodes, or are nil where that is said.
type Volume struct {
	Name     string            `toml:"-"` // unique among all services
	Service  string            `toml:"-"`
	Size     int64             `toml:"size"`     // bytes, a positive multiple of BlockSize
	Disk     map[string]string `toml:"disk"`     // file or block device
	Metadata map[string]string `toml:"metadata"` // nil: at the end of the device, or beside the file
	Export   map[string]Export `toml:"export"`
	Device   map[string]string `toml:"device"`  // /dev/nbdN to attach; nil: none
	Mount    *Mount            `toml:"mount"`   // nil: none
	Intents  int               `toml:"intents"` // how many regions may be under way, 16 to 65535
	Region   int64             `toml:"region"`  // bytes, a power of two, 64 KiB to 64 MiB
	Thin     bool              `toml:"thin"`    // a file's space is taken when it is written, given back when trimmed
}

// Mount is the file system that a serving node mounts from the device.
type Mount struct {
	At      map[string]string `toml:"at"` // by node
	Type    string            `toml:"type"`
	Options string            `toml:"options"`
}

// Node returns the node of that name, or nil.
func (c *Config) Node(name string) *Node {
	for i := range c.Nodes {
		if c.Nodes[i].Name == name {
			return &c.Nodes[i]
		}
	}
	return nil
}

// Peer returns the other node, or nil when there is no node of that name.
func (c *Config) Peer(name string) *Node {
	switch {
	case c.Node(name) == nil || len(c.Nodes) != 2:
		return nil
	case c.Nodes[0].Name == name:
		return &c.Nodes[1]
	default:
		return &c.Nodes[0]
	}
}

// Service returns the service of that name, or nil.
func (c *Config) Service(name string) *Service {
	for i := range c.Services {
		if c.Services[i].Name == name {
			return &c.Services[i]
		}
	}
	return nil
}

// Volume returns the volume of that name, whatever its service, or nil.
func (c *Config) Volume(name string) *Volume {
	for i := range c.Services {
		for j := range c.Services[i].Volumes {
			if v := &c.Services[i].Volumes[j]; v.Name == name {
				return v
			}
		}
	}
	return nil
}

// NodeNames returns the names of the two nodes.
func (c *Config) NodeNames() []string {
	names := make([]string, len(c.Nodes))
	for i := range c.Nodes {
		names[i] = c.Nodes[i].Name
	}
	return names
}

// KeyNames returns whom `twinbd init` makes keys for: the nodes, the witness
// (also when there is none yet, so that one can be added without new keys for
// the others) and the administrators.
func (c *Config) KeyNames() []string {
	return append(c.NodeNames(), WitnessName, AdminName)
}

// Names that no node may have, because keys are filed under them.
const (
	WitnessName = "witness"
	AdminName   = "admin"
)
