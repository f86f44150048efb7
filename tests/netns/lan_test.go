// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"fmt"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
)

// lan is the switch with both networks. Bridge 0 is everybody's, bridge 1 the
// direct link between the nodes; the port of a machine's eth0 is called NAME0.
type lan struct {
	*space
	cuts map[cut]bool
}

// cut is a direction in which no frame passes, from one port to another.
type cut struct {
	from, to string
	only     string // of these frames; "": of all
}

// beats are the frames of the nodes' connections with each other.
const beats = "tcp dport 7800"

func newLAN(t testing.TB) *lan {
	t.Helper()
	l := &lan{newSpace(t, "switch"), make(map[cut]bool)}
	l.in(t, func() error {
		for number := range 2 {
			bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: bridgeName(number)}}
			if err := netlink.LinkAdd(bridge); err != nil {
				return err
			}
			if err := netlink.LinkSetUp(bridge); err != nil {
				return err
			}
		}
		return nil
	})
	return l
}

func bridgeName(number int) string { return fmt.Sprintf("br%d", number) }

// connect runs a cable from a machine's interface ethN to bridge N, and gives it
// the address 10.77.N.host.
func (l *lan) connect(t testing.TB, s *space, number int, host byte) {
	t.Helper()
	device, port := fmt.Sprintf("eth%d", number), fmt.Sprintf("%s%d", s.name, number)
	l.in(t, func() error {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: port}, PeerName: device, PeerNamespace: netlink.NsFd(s.fd)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		bridge, err := netlink.LinkByName(bridgeName(number))
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return err
		}
		return netlink.LinkSetUp(link)
	})
	s.address(t, device, fmt.Sprintf("10.77.%d.%d/24", number, host))
}

// cable plugs a machine's cable in or pulls it, at the switch.
func (l *lan) cable(t testing.TB, port string, in bool) {
	t.Helper()
	l.in(t, func() error {
		link, err := netlink.LinkByName(port)
		if err != nil {
			return err
		}
		if in {
			return netlink.LinkSetUp(link)
		}
		return netlink.LinkSetDown(link)
	})
}

// cut drops all frames between the ports of two machines on both networks, in
// one direction.
func (l *lan) cut(t testing.TB, from, to string) {
	t.Helper()
	for number := range 2 {
		l.cuts[cut{fmt.Sprintf("%s%d", from, number), fmt.Sprintf("%s%d", to, number), ""}] = true
	}
	l.apply(t)
}

// mute drops what two nodes say to each other, and nothing else.
func (l *lan) mute(t testing.TB, a, b string) {
	t.Helper()
	for number := range 2 {
		from, to := fmt.Sprintf("%s%d", a, number), fmt.Sprintf("%s%d", b, number)
		l.cuts[cut{from, to, beats}], l.cuts[cut{to, from, beats}] = true, true
	}
	l.apply(t)
}

// part is cut in both directions.
func (l *lan) part(t testing.TB, a, b string) {
	t.Helper()
	l.cut(t, a, b)
	l.cut(t, b, a)
}

// heal lets all frames pass again.
func (l *lan) heal(t testing.TB) {
	t.Helper()
	clear(l.cuts)
	l.apply(t)
}

// apply replaces the rules of the switch in one step.
func (l *lan) apply(t testing.TB) {
	t.Helper()
	var rules strings.Builder
	rules.WriteString("table bridge faults\ndelete table bridge faults\n")
	if len(l.cuts) > 0 {
		rules.WriteString("table bridge faults {\nchain pass {\ntype filter hook forward priority 0;\n")
		for _, c := range slices.SortedFunc(maps.Keys(l.cuts), func(a, b cut) int { return strings.Compare(a.from+a.to, b.from+b.to) }) {
			fmt.Fprintf(&rules, "iifname %q oifname %q %s drop\n", c.from, c.to, c.only)
		}
		rules.WriteString("}\n}\n")
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules.String())
	var out []byte
	err := l.enter(func() (err error) {
		out, err = cmd.CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("set the rules of the switch: %v\n%s\n%s", err, out, rules.String())
	}
}
