// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"github.com/mdlayher/ndp"
)

// What a frame says of an address, and what it asks. IPv4 speaks ARP (RFC 826,
// 5227), IPv6 neighbour discovery (RFC 4861, 4862). Everything is written and
// read as a whole Ethernet frame, so that a question can be asked from no
// address at all, which the kernel's ICMPv6 sockets do not allow.

const (
	protocolARP  = protocol(ethernet.EtherTypeARP)
	protocolIPv6 = protocol(ethernet.EtherTypeIPv6)
)

// protocolOf is the protocol in which a question for the address is asked.
func protocolOf(ip netip.Addr) protocol {
	if ip.Is4() {
		return protocolARP
	}
	return protocolIPv6
}

var (
	noHardware = net.HardwareAddr{0, 0, 0, 0, 0, 0}
	allNodes   = netip.MustParseAddr("ff02::1")
)

// announcements are the frames that say: ip is at this hardware now. For IPv4
// there are two, since some machines heed only the one or the other: a request
// for oneself (RFC 5227, section 3) and a reply to nobody in particular. For
// IPv6 it is one unsolicited advertisement that overrides what was known (RFC
// 4861, section 7.2.6).
func announcements(ip netip.Addr, hardware net.HardwareAddr) ([][]byte, error) {
	if ip.Is6() {
		frame, err := ndpFrame(hardware, ip, allNodes, &ndp.NeighborAdvertisement{
			Override:      true,
			TargetAddress: ip,
			Options:       []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: hardware}},
		})
		return [][]byte{frame}, err
	}
	request, err := arpFrame(arp.OperationRequest, hardware, ip, noHardware, ip)
	if err != nil {
		return nil, err
	}
	// The target is the sender: Linux takes a reply as gratuitous only so.
	reply, err := arpFrame(arp.OperationReply, hardware, ip, hardware, ip)
	return [][]byte{request, reply}, err
}

// question is the frame that asks who has an address. An unspecified source
// makes it a probe (RFC 5227, section 2.1.1; RFC 4862, section 5.4.2): it
// claims nothing and changes nobody's cache, and the answer comes by broadcast
// or multicast.
func question(ip netip.Addr, hardware net.HardwareAddr, source netip.Addr) ([]byte, error) {
	if ip.Is4() {
		return arpFrame(arp.OperationRequest, hardware, source, noHardware, ip)
	}
	group, err := ndp.SolicitedNodeMulticast(ip)
	if err != nil {
		return nil, err
	}
	solicitation := &ndp.NeighborSolicitation{TargetAddress: ip}
	if !source.IsUnspecified() { // else the option is forbidden
		solicitation.Options = []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Source, Addr: hardware}}
	}
	return ndpFrame(hardware, source, group, solicitation)
}

// claim returns the hardware that says in a frame that it has ip. Frames come
// from strangers: what is not whole and right claims nothing.
func claim(frame []byte, ip netip.Addr) (net.HardwareAddr, bool) {
	var f ethernet.Frame
	if f.UnmarshalBinary(frame) != nil {
		return nil, false
	}
	switch {
	case ip.Is4() && f.EtherType == ethernet.EtherTypeARP:
		return arpClaim(f, ip)
	case ip.Is6() && f.EtherType == ethernet.EtherTypeIPv6:
		return ndpClaim(f, ip)
	}
	return nil, false
}

// arpClaim heeds replies and requests alike: whoever sends from the address
// has it (RFC 5227, section 2.1.1).
func arpClaim(f ethernet.Frame, ip netip.Addr) (net.HardwareAddr, bool) {
	var p arp.Packet
	if p.UnmarshalBinary(f.Payload) != nil || p.HardwareType != 1 || p.HardwareAddrLength != 6 ||
		p.ProtocolType != uint16(ethernet.EtherTypeIPv4) || p.SenderIP != ip {
		return nil, false
	}
	return p.SenderHardwareAddr, true
}

// ndpClaim does not verify the checksum: between virtual interfaces it is
// often not there yet, and the frame's own was right.
func ndpClaim(f ethernet.Frame, ip netip.Addr) (net.HardwareAddr, bool) {
	message, ok := icmpv6In(f.Payload)
	if !ok {
		return nil, false
	}
	parsed, err := ndp.ParseMessage(message)
	if err != nil {
		return nil, false
	}
	advertisement, ok := parsed.(*ndp.NeighborAdvertisement)
	if !ok || advertisement.TargetAddress != ip {
		return nil, false
	}
	for _, option := range advertisement.Options {
		if address, ok := option.(*ndp.LinkLayerAddress); ok && address.Direction == ndp.Target {
			return address.Addr, true
		}
	}
	return f.Source, true
}

func arpFrame(operation arp.Operation, hardware net.HardwareAddr, from netip.Addr, target net.HardwareAddr, to netip.Addr) ([]byte, error) {
	p, err := arp.NewPacket(operation, hardware, from, target, to)
	if err != nil {
		return nil, err
	}
	payload, err := p.MarshalBinary()
	if err != nil {
		return nil, err
	}
	f := ethernet.Frame{Destination: ethernet.Broadcast, Source: hardware, EtherType: ethernet.EtherTypeARP, Payload: payload}
	return f.MarshalBinary()
}

const (
	ipv6HeaderLength = 40
	icmpv6           = 58  // next header (RFC 8200)
	ndpHopLimit      = 255 // proves that no router forwarded it
)

func ndpFrame(hardware net.HardwareAddr, from, group netip.Addr, message ndp.Message) ([]byte, error) {
	body, err := ndp.MarshalMessageChecksum(message, from, group)
	if err != nil {
		return nil, err
	}
	packet := make([]byte, ipv6HeaderLength, ipv6HeaderLength+len(body))
	packet[0] = 6 << 4 // version
	binary.BigEndian.PutUint16(packet[4:], uint16(len(body)))
	packet[6], packet[7] = icmpv6, ndpHopLimit
	copy(packet[8:], from.AsSlice())
	copy(packet[24:], group.AsSlice())

	f := ethernet.Frame{Destination: multicastHardware(group), Source: hardware,
		EtherType: ethernet.EtherTypeIPv6, Payload: append(packet, body...)}
	return f.MarshalBinary()
}

// icmpv6In is the ICMPv6 message of a packet that comes from the same link.
func icmpv6In(packet []byte) ([]byte, bool) {
	if len(packet) < ipv6HeaderLength || packet[0]>>4 != 6 || packet[6] != icmpv6 || packet[7] != ndpHopLimit {
		return nil, false
	}
	length := int(binary.BigEndian.Uint16(packet[4:]))
	if length > len(packet)-ipv6HeaderLength {
		return nil, false
	}
	return packet[ipv6HeaderLength:][:length], true // without Ethernet's padding
}

// multicastHardware is the hardware address of a group (RFC 2464, section 7).
func multicastHardware(group netip.Addr) net.HardwareAddr {
	b := group.As16()
	return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
}
