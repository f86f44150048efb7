// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// answering makes machines answer questions for the virtual addresses.
func answering(t *testing.T, hardware ...net.HardwareAddr) func([]byte) [][]byte {
	replies := make(map[byte][][]byte) // by EtherType's first byte, which tells the families apart
	for i, a := range []Address{virtual4, virtual6} {
		for _, h := range hardware {
			replies[[]byte{0x08, 0x86}[i]] = append(replies[[]byte{0x08, 0x86}[i]], reply(t, a.IP(), h))
		}
	}
	return func(question []byte) [][]byte { return replies[question[12]] }
}

func TestProbe(t *testing.T) {
	tests := []struct {
		name     string
		answer   []net.HardwareAddr
		want     string
		peerHas  bool
		stranger bool
	}{
		{"nobody", nil, "[]", false, false},
		{"the peer", []net.HardwareAddr{peerMAC}, "[52:54:00:00:00:0b]", true, false},
		{"a stranger", []net.HardwareAddr{strangerMAC}, "[52:54:00:00:00:0c]", false, true},
		{"both", []net.HardwareAddr{peerMAC, strangerMAC}, "[52:54:00:00:00:0b 52:54:00:00:00:0c]", true, true},
		{"only this node", []net.HardwareAddr{ownMAC, otherMAC}, "[]", false, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				f.answer = answering(t, test.answer...)
				m := f.manager(t, time.Second, virtual4, virtual6)
				answers, err := m.Probe(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if took := time.Since(f.begin); took != askWindow {
					t.Errorf("took %v", took)
				}
				for i, a := range []Address{virtual4, virtual6} {
					if got := answers[i]; got.Address != a || fmt.Sprint(got.Hardware) != test.want {
						t.Errorf("%v: %v, want %s", got.Address, got.Hardware, test.want)
					}
				}
				peerHas, err := Judge(answers, []net.HardwareAddr{peerMAC})
				if peerHas != test.peerHas || errors.Is(err, ErrInUse) != test.stranger {
					t.Errorf("judged %v, %v", peerHas, err)
				}
				if test.stranger && !strings.Contains(err.Error(), "virtual address 10.0.0.100: address in use by another machine, 52:54:00:00:00:0c; hint: ") {
					t.Errorf("error %v", err)
				}
			})
		})
	}
}

// Probe claims nothing, Resolve asks as a client does; both repeat themselves.
func TestQuestionsSent(t *testing.T) {
	tests := []struct {
		name string
		ask  func(*Manager, context.Context) ([]Answer, error)
		from [2]netip.Addr
	}{
		{"probe", (*Manager).Probe, [2]netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}},
		{"resolve", (*Manager).Resolve, [2]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				m := f.manager(t, time.Second, virtual4, virtual6)
				if _, err := test.ask(m, t.Context()); err != nil {
					t.Fatal(err)
				}
				frames := f.take()
				for i, a := range []Address{virtual4, virtual6} {
					want := must(question(a.IP(), ownMAC, test.from[i]))
					var at []time.Duration
					for _, s := range frames {
						if bytes.Equal(s.frame, want) && s.iface == "eth0" {
							at = append(at, s.at)
						}
					}
					if !slices.Equal(at, askAt[:]) {
						t.Errorf("%v asked at %v", a, at)
					}
				}
				if len(frames) != 2*len(askAt) {
					t.Errorf("%d frames", len(frames))
				}
			})
		})
	}
}

func TestProbeNamesWhatCouldNotBeAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fail["send eth0"] = errors.New("network is down")
		elsewhere := Address{Prefix: netip.MustParsePrefix("192.168.9.100/24")}
		m := f.manager(t, time.Second, virtual4, elsewhere, Address{netip.MustParsePrefix("10.1.0.1/24"), "lo"})
		answers, err := m.Probe(t.Context())
		if err == nil || err.Error() != "ask for virtual address 10.0.0.100: network is down" {
			t.Errorf("error %v", err)
		}
		if len(answers) != 2 || answers[0].Address != elsewhere {
			t.Errorf("answers %v", answers)
		}
	})
}

func TestProbeEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := f.manager(t, time.Second, virtual4)
		ctx, cancel := context.WithTimeout(t.Context(), 60*ms)
		defer cancel()
		if _, err := m.Probe(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
		if took := time.Since(f.begin); took != 100*ms {
			t.Errorf("took %v", took)
		}
	})
}

func TestHardware(t *testing.T) {
	f := newFake()
	m, err := newManager(Config{Addresses: []Address{{netip.MustParsePrefix("192.168.9.100/24"), ""}}, Lifetime: time.Second}, f)
	if err != nil {
		t.Fatal(err)
	}
	f.list = append(f.list, device{name: "eth2", hardware: strangerMAC}) // without an address
	got, err := m.Hardware()
	if err != nil || fmt.Sprint(got) != fmt.Sprint([]net.HardwareAddr{otherMAC, ownMAC}) {
		t.Errorf("%v, %v: want the address's interface first", got, err)
	}
	for i := range 100 {
		f.list = append(f.list, device{name: "veth", hardware: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}, prefixes: prefixes("fe80::1/64")})
	}
	if got, err = m.Hardware(); err != nil || len(got) != maxHardware {
		t.Errorf("%d, %v", len(got), err)
	}
}
