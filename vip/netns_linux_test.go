// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// These tests run on real kernels' network stacks: machines in namespaces,
//
//	alpha 10.0.0.1   beta 10.0.0.2   client 10.0.0.3   stranger 10.0.0.4
//	         \             |             |              /
//	          +---------- switch, a bridge ------------+
//
// with fd00::1 and so on, made by each test for itself. They need root.

const (
	service    = 7000 // TCP
	everywhere = "[::]:7000"
)

var families = []Address{virtual4, virtual6}

// bursting is until when neighbours must have heard of a takeover.
var bursting = burst[len(burst)-1] + 500*time.Millisecond

func TestTakeoverMovesNeighbours(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	alpha, beta, client := l.plug(t, "alpha", 1), l.plug(t, "beta", 2), l.plug(t, "client", 3)
	first, second := alpha.manager(t, 3*time.Second, families...), beta.manager(t, 3*time.Second, families...)
	alpha.listen(t, everywhere)
	beta.listen(t, everywhere)

	if err := first.Take(); err != nil {
		t.Fatal(err)
	}
	for _, a := range families {
		client.dial(t, a.IP(), service)
		if got := client.neighbour(t, a.IP()); !slices.Equal(got, alpha.hardware(t)) {
			t.Fatalf("%s is at %v, want alpha's %v", a.IP(), got, alpha.hardware(t))
		}
	}
	if _, err := first.Leave(); err != nil {
		t.Fatal(err)
	}
	for _, a := range families { // the client cannot know better yet: what follows is due to the announcements
		if got := client.neighbour(t, a.IP()); !slices.Equal(got, alpha.hardware(t)) {
			t.Fatalf("%s is at %v before it was announced", a.IP(), got)
		}
	}
	if err := second.Take(); err != nil {
		t.Fatal(err)
	}
	for _, a := range families {
		took := eventually(t, "the client finds beta", bursting, func() bool {
			return slices.Equal(client.neighbour(t, a.IP()), beta.hardware(t))
		})
		t.Logf("%s found after %v", a.IP(), took)
		client.dial(t, a.IP(), service)
	}
}

func TestDeadDaemonLosesTheAddress(t *testing.T) {
	t.Parallel()
	alpha := newLAN(t).plug(t, "alpha", 1)
	m := alpha.manager(t, time.Second, families...)
	if err := m.Take(); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 20 { // twice its lifetime
		<-tick.C
		if err := m.Renew(); err != nil {
			t.Fatal(err)
		}
	}
	renewed := time.Now()
	for _, a := range families {
		if _, ok := alpha.has(t, a.IP()); !ok {
			t.Fatalf("%s is gone although it was renewed", a.IP())
		}
	}
	for _, a := range families {
		eventually(t, a.String()+" goes by itself", 4*time.Second, func() bool {
			_, ok := alpha.has(t, a.IP())
			return !ok
		})
	}
	if stayed := time.Since(renewed); stayed < 900*time.Millisecond || stayed > 2500*time.Millisecond {
		t.Errorf("stayed for %v", stayed)
	}
	if err := m.Renew(); !errors.Is(err, ErrLost) {
		t.Errorf("renewed: %v, want ErrLost", err)
	}
}

func TestStrangerIsFound(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	alpha, stranger := l.plug(t, "alpha", 1), l.plug(t, "stranger", 4)
	m := alpha.manager(t, time.Second, families...)
	answers, err := m.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if peerHas, err := Judge(answers, nil); peerHas || err != nil || len(answers) != 2 {
		t.Fatalf("without anybody: %v, %v, %v", answers, peerHas, err)
	}
	for _, a := range families {
		stranger.in(t, func() error { return stranger.add(a.Prefix.String()) })
	}
	answers = allAnswer(t, m.Probe)
	for _, answer := range answers {
		if len(answer.Hardware) != 1 || !slices.Equal(answer.Hardware[0], stranger.hardware(t)) {
			t.Errorf("%v: %v, want %v", answer.Address, answer.Hardware, stranger.hardware(t))
		}
	}
	_, err = Judge(answers, []net.HardwareAddr{peerMAC})
	if !errors.Is(err, ErrInUse) || strings.Count(err.Error(), stranger.hardware(t).String()) != 2 {
		t.Errorf("judged %v", err)
	}
	known, err := stranger.manager(t, time.Second).Hardware()
	if err != nil {
		t.Fatal(err)
	}
	if peerHas, err := Judge(answers, known); !peerHas || err != nil {
		t.Errorf("were it the peer: %v, %v", peerHas, err)
	}
}

// allAnswer asks until somebody answers for every address: on a busy machine
// 150 ms may not do.
func allAnswer(t *testing.T, ask func(context.Context) ([]Answer, error)) (answers []Answer) {
	t.Helper()
	eventually(t, "somebody answers for every address", 5*time.Second, func() bool {
		var err error
		if answers, err = ask(t.Context()); err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(answers, func(a Answer) bool { return len(a.Hardware) == 0 })
	})
	return answers
}

func TestTruthFromOutside(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	alpha, beta := l.plug(t, "alpha", 1), l.plug(t, "beta", 2)
	serving, looking := alpha.manager(t, 3*time.Second, families...), beta.manager(t, 3*time.Second, families...)
	if err := serving.Take(); err != nil {
		t.Fatal(err)
	}
	for _, answer := range allAnswer(t, looking.Resolve) {
		if fmt.Sprint(answer.Hardware) != fmt.Sprint([]net.HardwareAddr{alpha.hardware(t)}) {
			t.Errorf("%v is at %v, want %v", answer.Address, answer.Hardware, alpha.hardware(t))
		}
	}
	// Who has it hears only others.
	if answers, err := serving.Resolve(t.Context()); err != nil || len(answers[0].Hardware)+len(answers[1].Hardware) != 0 {
		t.Errorf("alpha hears %v, %v", answers, err)
	}
}

func TestConnectionsAreReset(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	alpha, client := l.plug(t, "alpha", 1), l.plug(t, "client", 3)
	m := alpha.manager(t, 3*time.Second, families...)
	alpha.listen(t, everywhere) // for both families: IPv4 comes mapped
	if err := m.Take(); err != nil {
		t.Fatal(err)
	}
	moving := []net.Conn{client.dial(t, virtual4.IP(), service), client.dial(t, virtual6.IP(), service)}
	staying := client.dial(t, netip.MustParseAddr("10.0.0.1"), service)

	start := time.Now()
	left, err := m.Leave()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("left in %v", time.Since(start))
	if errors.Is(left.Unreset, errors.ErrUnsupported) {
		t.Skipf("this kernel resets no connections: %v", left.Unreset)
	}
	if left.Unreset != nil || left.Connections != 2 || len(left.Removed) != 2 {
		t.Errorf("left %+v", left)
	}
	for _, c := range moving {
		_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
			t.Errorf("client of %v reads: %v, want a reset", c.RemoteAddr(), err)
		}
	}
	_ = staying.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := staying.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("client of the node's own address reads: %v", err)
	}
	client.dial(t, netip.MustParseAddr("10.0.0.1"), service) // it still listens
}

// A server may bind to the addresses as soon as they are taken, and one that
// did keeps its listening socket when they leave and return.
func TestServerOnTheAddress(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	alpha, client := l.plug(t, "alpha", 1), l.plug(t, "client", 3)
	m := alpha.manager(t, 3*time.Second, families...)
	if err := m.Take(); err != nil {
		t.Fatal(err)
	}
	for _, a := range families {
		alpha.listen(t, netip.AddrPortFrom(a.IP(), service).String())
	}
	if left, err := m.Leave(); err != nil || left.Connections != 0 {
		t.Fatalf("left %+v, %v", left, err)
	}
	if err := m.Take(); err != nil {
		t.Fatal(err)
	}
	for _, a := range families {
		client.dial(t, a.IP(), service)
	}
}

// The node's own address is neither changed by the virtual one nor replaced as
// the source of its connections.
func TestNodeKeepsItsOwnAddress(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	alpha, client := l.plug(t, "alpha", 1), l.plug(t, "client", 3)
	client.listen(t, everywhere)
	m := alpha.manager(t, 3*time.Second, families...)
	if err := m.Take(); err != nil {
		t.Fatal(err)
	}
	alpha.in(t, func() error { // nor does it add routes where there is one
		_, host, _ := net.ParseCIDR("fd00::100/128")
		routes, err := netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Dst: host, Table: unix.RT_TABLE_MAIN},
			netlink.RT_FILTER_DST|netlink.RT_FILTER_TABLE)
		if len(routes) > 0 {
			t.Errorf("routes added: %v", routes)
		}
		return err
	})
	for own, other := range map[string]string{"10.0.0.1": "10.0.0.3", "fd00::1": "fd00::3"} {
		c := alpha.dial(t, netip.MustParseAddr(other), service)
		if got := c.LocalAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); got.String() != own {
			t.Errorf("connects to %s from %s", other, got)
		}
	}
	if _, err := m.Leave(); err != nil {
		t.Fatal(err)
	}
	for _, own := range []string{"10.0.0.1", "fd00::1"} {
		if _, ok := alpha.has(t, netip.MustParseAddr(own)); !ok {
			t.Errorf("%s went along", own)
		}
	}
}

// A daemon that is back soon finds its addresses and renews them, and one that
// may not serve any more removes what it never took.
func TestAfterARestart(t *testing.T) {
	t.Parallel()
	alpha := newLAN(t).plug(t, "alpha", 1)
	away := Address{netip.MustParsePrefix("192.168.77.100/24"), "eth0"} // brings its subnet
	all := append(slices.Clone(families), away)
	before := alpha.manager(t, 3*time.Second, all...)
	if err := before.Take(); err != nil {
		t.Fatal(err)
	}
	before.Close()
	want := map[Address]string{virtual4: "10.0.0.100/32", virtual6: "fd00::100/128", away: "192.168.77.100/24"}
	check := func(when string) {
		t.Helper()
		for a, prefix := range want {
			if got, _ := alpha.has(t, a.IP()); got.String() != prefix {
				t.Errorf("%s: %s, want %s", when, got, prefix)
			}
		}
	}
	check("taken")
	if err := alpha.manager(t, 3*time.Second, all...).Take(); err != nil {
		t.Fatal(err)
	}
	check("taken over")
	left, err := alpha.manager(t, 3*time.Second, all...).Leave()
	if err != nil || len(left.Removed) != 3 {
		t.Errorf("left %+v, %v", left, err)
	}
	for _, a := range all {
		if _, ok := alpha.has(t, a.IP()); ok {
			t.Errorf("%s is still there", a.IP())
		}
	}
	left, err = alpha.manager(t, 3*time.Second, all...).Leave()
	if err != nil || len(left.Removed) != 0 || left.Unreset != nil {
		t.Errorf("left again %+v, %v", left, err)
	}
}

func TestPulledCableIsSeen(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	alpha := l.plug(t, "alpha", 1)
	m := alpha.manager(t, time.Second, virtual4)
	links := make(chan Link, 16)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Watch(ctx, func(l Link) { links <- l }) }()
	expect := func(up bool) {
		t.Helper()
		for limit := time.After(lookEvery / 2); ; { // by news, not by looking
			select {
			case link := <-links:
				if link.Up == up {
					if link.Address != virtual4 || link.Interface != "eth0" {
						t.Errorf("reported %+v", link)
					}
					return
				}
			case <-limit:
				t.Fatalf("nothing reported, want up %v", up)
			}
		}
	}
	expect(true)
	l.cable(t, "alpha", false)
	expect(false)
	l.cable(t, "alpha", true)
	expect(true)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestPing(t *testing.T) {
	t.Parallel()
	l := newLAN(t)
	alpha := l.plug(t, "alpha", 1)
	l.plug(t, "router", 254)
	tests := []struct {
		ip   string
		want string // of the error; empty: it answers
	}{
		{"10.0.0.254", ""},
		{"fd00::fe", ""},
		{"10.0.0.99", "ping 10.0.0.99: no answer: context deadline exceeded"},
		{"fd00::99", "ping fd00::99: no answer: context deadline exceeded"},
		{"10.99.0.1", "network is unreachable"},
	}
	for _, test := range tests {
		alpha.enter(func() {
			limit := 5 * time.Second
			if test.want != "" {
				limit = 300 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(t.Context(), limit)
			defer cancel()
			err := Ping(ctx, netip.MustParseAddr(test.ip))
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%s: %v, want %q", test.ip, err, test.want)
			}
		})
	}
}

// Without rights each step fails with one line that says what is missing.
func TestWithoutRights(t *testing.T) {
	t.Parallel()
	alpha := newLAN(t).plug(t, "alpha", 1)
	alpha.enter(func() {
		// Of this thread only, which ends with it.
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&header, &none[0]); err != nil {
			t.Errorf("give up rights: %v", err)
			return
		}
		devices, err := kernel{}.devices()
		if err != nil {
			t.Errorf("list devices: %v", err)
			return
		}
		eth0, _ := deviceNamed(devices, "eth0")
		own := eth0.prefixes[0]
		_, openErr := kernel{}.open(eth0, protocolARP)
		for step, err := range map[string]error{
			"assign": kernel{}.assign(eth0, virtual4.Prefix, time.Second, true),
			"remove": kernel{}.remove(eth0, own),
			"open":   openErr,
		} {
			if !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "hint: run as root, or with CAP_NET_ADMIN") {
				t.Errorf("%s: %v", step, err)
			}
		}
	})
}
