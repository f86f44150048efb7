// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Connections are found and ended through sock_diag(7): struct
// inet_diag_req_v2 asks, struct inet_diag_msg answers, both with the identity
// of a socket (struct inet_diag_sockid, linux/inet_diag.h), which is handed
// back as it came, so that no other socket is hit.

const (
	identityLength = 48
	identityOffset = 4 // in inet_diag_msg: family, state, timer, retransmissions
)

// connected are the states of TCP that a connection can be in (enum in
// net/tcp_states.h). Not LISTEN, whose socket is to outlive the address;
// neither TIME_WAIT nor CLOSE, which are over.
const connected = 1<<1 | 1<<2 | 1<<3 | 1<<4 | 1<<5 | 1<<8 | 1<<9 | 1<<11 | 1<<12

// diagRequest is struct inet_diag_req_v2 for TCP.
type diagRequest struct {
	family   byte
	states   uint32
	identity [identityLength]byte
}

func (r *diagRequest) Len() int { return 8 + identityLength }

func (r *diagRequest) Serialize() []byte {
	b := []byte{r.family, unix.IPPROTO_TCP, 0, 0} // no extensions, padding
	b = binary.NativeEndian.AppendUint32(b, r.states)
	return append(b, r.identity[:]...)
}

func (kernel) reset(ips []netip.Addr) (count int, err error) {
	// A socket for both families has its IPv4 connections among IPv6's.
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		found, listErr := connectionsTo(ips, family)
		if listErr != nil {
			return count, fmt.Errorf("list TCP connections: %w", listErr)
		}
		for _, c := range found {
			switch one := destroy(c); {
			case one == nil:
				count++
			case errors.Is(one, unix.ENOENT): // ended by itself
			case errors.Is(one, unix.EOPNOTSUPP):
				return count, &hintError{one, "use a kernel with CONFIG_INET_DIAG_DESTROY"}
			case err == nil:
				err = permitted(one) // and go on with the others
			}
		}
	}
	return count, err
}

// connectionsTo lists the connections whose local address is one of ips, as
// requests that end them.
func connectionsTo(ips []netip.Addr, family byte) (found []*diagRequest, err error) {
	request := nl.NewNetlinkRequest(nl.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	request.AddData(&diagRequest{family: family, states: connected})
	err = request.ExecuteIter(unix.NETLINK_INET_DIAG, nl.SOCK_DIAG_BY_FAMILY, func(message []byte) bool {
		if c, local, ok := parseConnection(message); ok && slices.Contains(ips, local) {
			found = append(found, c)
		}
		return true
	})
	if errors.Is(err, netlink.ErrDumpInterrupted) {
		err = nil // what was missed came after the address was asked to leave
	}
	return found, err
}

// parseConnection reads struct inet_diag_msg.
func parseConnection(message []byte) (c *diagRequest, local netip.Addr, ok bool) {
	if len(message) < identityOffset+identityLength {
		return nil, local, false
	}
	c = &diagRequest{family: message[0]}
	copy(c.identity[:], message[identityOffset:])
	source := c.identity[4:20] // after two ports
	if c.family == unix.AF_INET {
		return c, netip.AddrFrom4([4]byte(source)), true
	}
	return c, netip.AddrFrom16([16]byte(source)).Unmap(), true
}

func destroy(c *diagRequest) error {
	request := nl.NewNetlinkRequest(nl.SOCK_DESTROY, unix.NLM_F_ACK)
	request.AddData(c)
	_, err := request.Execute(unix.NETLINK_INET_DIAG, 0)
	return err
}
