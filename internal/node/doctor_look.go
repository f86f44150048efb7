// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/vip"
)

// onlooker looks at networks as this node would, without being it: it listens
// nowhere, and asks nothing that changes anything.
type onlooker struct{ *doctor }

func (o onlooker) interfaces() ([]netInterface, error) {
	list, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	var all []netInterface
	for _, i := range list {
		n := netInterface{name: i.Name, carries: i.Flags&net.FlagUp != 0 && i.Flags&net.FlagRunning != 0}
		addresses, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addresses {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				n.prefixes = append(n.prefixes, p)
			}
		}
		all = append(all, n)
	}
	return all, nil
}

// askPeer asks the peer for its configuration at one of its addresses, with this
// node's key.
func (o onlooker) askPeer(ctx context.Context, at netip.AddrPort) (config.Values, error) {
	p := &peers{node: &Node{cfg: o.cfg, self: o.self, peer: o.peer, keys: o.keys}}
	conn, err := p.dialAt(ctx, at, p.preamble(preamble{Kind: kindCall}))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })()
	conn.SetDeadline(time.Now().Add(callTimeout))
	if err := writeMessage(conn, call{Verb: callValues}); err != nil {
		return nil, err
	}
	var r reply
	err = readMessage(conn, &r)
	return r.Values, err
}

// reachWitness connects and makes sure of the witness's key. It asks for no
// record: who asks says what he knows of it, and a doctor knows nothing.
func (o onlooker) reachWitness(ctx context.Context, at string) error {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", at)
	if err != nil || o.keys == nil {
		if err == nil {
			err = conn.Close()
		}
		return err
	}
	secure, err := o.keys.Connect(ctx, conn, witnessName)
	if err != nil {
		return err
	}
	return secure.Close()
}

func (o onlooker) manager(s *config.Service) (*vip.Manager, error) {
	var list []vip.Address
	for _, ip := range s.IP {
		list = append(list, vip.Address{Prefix: ip.Prefix, Interface: ip.Interface})
	}
	return vip.New(vip.Config{Addresses: list, Lifetime: s.Pace.Timeout, Log: slog.New(slog.DiscardHandler)})
}

func (o onlooker) links(s *config.Service) ([]vip.Link, error) {
	m, err := o.manager(s)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return m.Links()
}

func (o onlooker) probe(ctx context.Context, s *config.Service) ([]vip.Answer, error) {
	m, err := o.manager(s)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	return m.Probe(ctx)
}

// status asks the node that runs here, if one does.
func (o onlooker) status(ctx context.Context) (*control.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	client := control.NewClient(o.self.ControlSocket())
	defer client.Close()
	status, err := client.Status(ctx)
	if err == nil && status.Node != o.self.Name {
		err = fmt.Errorf("at %s answers node %s", o.self.ControlSocket(), status.Node)
	}
	return status, err
}
