// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func mustHex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.NewReplacer(" ", "", "\n", "", "\t", "").Replace(text))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func pad(b []byte, n int) []byte { return append(b, make([]byte, max(0, n-len(b)))...) }

// The frames, byte by byte, from the tables of the RFCs. The ICMPv6 checksums
// were summed by checksum below, not by the code under test.
func TestFrames(t *testing.T) {
	v4, v6 := virtual4.IP(), virtual6.IP()
	got := func(frames [][]byte, err error) [][]byte {
		if err != nil {
			t.Fatal(err)
		}
		return frames
	}
	ask := func(ip, source netip.Addr) [][]byte {
		frame, err := question(ip, ownMAC, source)
		return got([][]byte{frame}, err)
	}
	const arpHead = "0001 0800 06 04 " // Ethernet, IPv4, their lengths: RFC 826
	tests := []struct {
		name string
		got  [][]byte
		want []string
	}{
		{"announce IPv4: request and reply, RFC 5227 section 3", got(announcements(v4, ownMAC)), []string{
			"ffffffffffff 52540000000a 0806 " + arpHead + "0001 52540000000a 0a000064 000000000000 0a000064",
			"ffffffffffff 52540000000a 0806 " + arpHead + "0002 52540000000a 0a000064 52540000000a 0a000064",
		}},
		{"probe IPv4: from no address, RFC 5227 section 2.1.1", ask(v4, netip.IPv4Unspecified()), []string{
			"ffffffffffff 52540000000a 0806 " + arpHead + "0001 52540000000a 00000000 000000000000 0a000064",
		}},
		{"ask IPv4", ask(v4, netip.MustParseAddr("10.0.0.1")), []string{
			"ffffffffffff 52540000000a 0806 " + arpHead + "0001 52540000000a 0a000001 000000000000 0a000064",
		}},
		{"announce IPv6: unsolicited, override, to all nodes, RFC 4861 section 4.4", got(announcements(v6, ownMAC)), []string{
			"333300000001 52540000000a 86dd 60000000 0020 3a ff" +
				"fd000000000000000000000000000100 ff020000000000000000000000000001" +
				"88 00 CCCC 20000000 fd000000000000000000000000000100 02 01 52540000000a",
		}},
		{"probe IPv6: from no address, without option, RFC 4862 section 5.4.2", ask(v6, netip.IPv6Unspecified()), []string{
			"3333ff000100 52540000000a 86dd 60000000 0018 3a ff" +
				"00000000000000000000000000000000 ff0200000000000000000001ff000100" +
				"87 00 CCCC 00000000 fd000000000000000000000000000100",
		}},
		{"ask IPv6: RFC 4861 section 4.3", ask(v6, netip.MustParseAddr("fd00::1")), []string{
			"3333ff000100 52540000000a 86dd 60000000 0020 3a ff" +
				"fd000000000000000000000000000001 ff0200000000000000000001ff000100" +
				"87 00 CCCC 00000000 fd000000000000000000000000000100 01 01 52540000000a",
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if len(test.got) != len(test.want) {
				t.Fatalf("%d frames, want %d", len(test.got), len(test.want))
			}
			for i, text := range test.want {
				want := pad(mustHex(t, strings.Replace(text, "CCCC", "0000", 1)), 60) // Ethernet's least, without FCS
				if strings.Contains(text, "CCCC") {
					sum := checksum(want[14:])
					want[14+40+2], want[14+40+3] = byte(sum>>8), byte(sum)
				}
				if !bytes.Equal(test.got[i], want) {
					t.Errorf("frame %d\n got %x\nwant %x", i, test.got[i], want)
				}
			}
		})
	}
}

// checksum is that of ICMPv6 over an IPv6 packet whose checksum field is zero
// (RFC 4443 section 2.3, RFC 8200 section 8.1).
func checksum(packet []byte) uint16 {
	length := int(packet[4])<<8 | int(packet[5])
	sum := uint32(length) + 58
	for i := 8; i < 40+length; i += 2 {
		sum += uint32(packet[i])<<8 | uint32(packet[i+1])
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// reply is what a machine that has an address answers to a question.
func reply(t testing.TB, ip netip.Addr, hardware net.HardwareAddr) []byte {
	t.Helper()
	frames, err := announcements(ip, hardware)
	if err != nil {
		t.Fatal(err)
	}
	return frames[len(frames)-1]
}

func TestClaim(t *testing.T) {
	const arp4 = "ffffffffffff 52540000000c 0806 0001 0800 06 04 0002 52540000000c 0a000064 52540000000a 0a000001"
	const ndp6 = "333300000001 52540000000c 86dd 60000000 0020 3a ff" +
		"fd000000000000000000000000000100 ff020000000000000000000000000001" +
		"88 00 0000 60000000 fd000000000000000000000000000100 02 01 52540000000c"
	edit := func(text string, at int, b byte) []byte {
		f := mustHex(t, text)
		f[at] = b
		return f
	}
	tests := []struct {
		name  string
		frame []byte
		ip    netip.Addr
		want  net.HardwareAddr
	}{
		{"ARP reply", mustHex(t, arp4), virtual4.IP(), strangerMAC},
		{"ARP reply, padded", pad(mustHex(t, arp4), 60), virtual4.IP(), strangerMAC},
		{"ARP request from the address", edit(arp4, 21, 1), virtual4.IP(), strangerMAC},
		{"ARP reply of another address", mustHex(t, arp4), netip.MustParseAddr("10.0.0.101"), nil},
		{"ARP of another hardware type", edit(arp4, 15, 6), virtual4.IP(), nil},
		{"ARP of another protocol", edit(arp4, 16, 0x86), virtual4.IP(), nil},
		{"ARP with a hardware length that lies", edit(arp4, 18, 255), virtual4.IP(), nil},
		{"ARP without protocol length", edit(arp4, 19, 0), virtual4.IP(), nil},
		{"ARP cut off", mustHex(t, arp4)[:41], virtual4.IP(), nil},
		{"a probe claims nothing", must(question(virtual4.IP(), strangerMAC, netip.IPv4Unspecified())), virtual4.IP(), nil},
		{"advertisement", mustHex(t, ndp6), virtual6.IP(), strangerMAC},
		{"advertisement without option", edit(strings.TrimSuffix(ndp6, " 02 01 52540000000c"), 14+5, 24), virtual6.IP(), strangerMAC},
		{"advertisement of another address", mustHex(t, ndp6), netip.MustParseAddr("fd00::101"), nil},
		{"advertisement through a router", edit(ndp6, 14+7, 254), virtual6.IP(), nil},
		{"advertisement longer than its packet", edit(ndp6, 14+5, 33), virtual6.IP(), nil},
		{"advertisement cut off", mustHex(t, ndp6)[:14+40+10], virtual6.IP(), nil},
		{"IPv6, but not ICMP", edit(ndp6, 14+6, 17), virtual6.IP(), nil},
		{"a solicitation claims nothing", must(question(virtual6.IP(), strangerMAC, netip.IPv6Unspecified())), virtual6.IP(), nil},
		{"the other family", mustHex(t, arp4), virtual6.IP(), nil},
		{"nothing", nil, virtual4.IP(), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, ok := claim(test.frame, test.ip)
			if !bytes.Equal(got, test.want) || ok != (test.want != nil) {
				t.Errorf("got %v, %v, want %v", got, ok, test.want)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// Whatever is announced is heard as such, by those who ask for it and nobody else.
func TestAnnouncementsClaim(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		six := rapid.Bool().Draw(t, "six")
		ip := func(label string) netip.Addr {
			if six {
				b := rapid.SliceOfN(rapid.Byte(), 15, 15).Draw(t, label)
				return netip.AddrFrom16([16]byte(append([]byte{0xfd}, b...)))
			}
			b := rapid.SliceOfN(rapid.Byte(), 3, 3).Draw(t, label)
			return netip.AddrFrom4([4]byte(append([]byte{10}, b...)))
		}
		hardware := net.HardwareAddr(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "hardware"))
		one, two := ip("one"), ip("two")
		frames, err := announcements(one, hardware)
		if err != nil {
			t.Fatal(err)
		}
		for _, frame := range frames {
			if got, ok := claim(frame, one); !ok || !bytes.Equal(got, hardware) {
				t.Fatalf("%s announced at %v, heard at %v, %v", one, hardware, got, ok)
			}
			if _, ok := claim(frame, two); ok && one != two {
				t.Fatalf("%s announced, %s heard", one, two)
			}
		}
	})
}

func FuzzClaim(f *testing.F) {
	for _, a := range []Address{virtual4, virtual6} {
		for _, frame := range must(announcements(a.IP(), strangerMAC)) {
			f.Add(frame)
		}
		f.Add(must(question(a.IP(), ownMAC, unspecified(a.IP()))))
	}
	f.Fuzz(func(t *testing.T, frame []byte) {
		for _, a := range []Address{virtual4, virtual6} {
			if hardware, ok := claim(frame, a.IP()); ok && len(hardware) != 6 {
				t.Errorf("claimed by %v", hardware)
			}
		}
	})
}
