// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/vip"
)

// What the doctor finds on the network.

// checkAddresses: the node's own addresses are this machine's, on interfaces that
// carry.
func (d *doctor) checkAddresses(context.Context) []Finding {
	list, err := d.machine.interfaces()
	if err != nil {
		return []Finding{unseen("the node's addresses", err)}
	}
	var found []Finding
	for _, at := range d.self.Address {
		found = append(found, ownAddress(list, at, d.self.Name))
	}
	if len(d.self.Address) == 1 {
		found = append(found, warned("give each node an address on a second network, best a direct link",
			"there is one path to %s: when it fails, the nodes do not hear each other", d.peer.Name))
	}
	return found
}

func ownAddress(list []netInterface, at netip.AddrPort, self string) Finding {
	for _, i := range list {
		for _, p := range i.prefixes {
			if p.Addr().Unmap().WithZone("") != at.Addr().Unmap().WithZone("") {
				continue
			}
			if !i.carries {
				return bad("plug the cable in, or `ip link set "+i.name+" up`", "%s is on %s, which is down or has no carrier", at.Addr(), i.name)
			}
			return good("%s is on %s", at.Addr(), i.name)
		}
	}
	if at.Addr().IsUnspecified() || at.Addr().IsLoopback() {
		return warned(fmt.Sprintf("set node.%s.address to what the peer can reach", self), "%s is reached from this machine only", at.Addr())
	}
	return bad(fmt.Sprintf("give it to an interface, or correct node.%s.address", self), "%s is no address of this machine", at.Addr())
}

// checkPeer: the peer answers on every path, has the right key and the same
// configuration.
func (d *doctor) checkPeer(ctx context.Context) []Finding {
	var found []Finding
	var values config.Values
	reached := 0
	for _, at := range d.peer.Address {
		v, err := d.machine.askPeer(ctx, at)
		if err != nil {
			r := control.Refuse(err)
			hint := r.Hint
			if hint == "" {
				hint = fmt.Sprintf("start `twinbd serve` on %s; look at the network and at firewalls between", d.peer.Name)
			}
			found = append(found, warned(hint, "%s does not answer at %s: %s", d.peer.Name, at, r.Message))
			continue
		}
		reached++
		values = v
		found = append(found, good("%s answers at %s%s", d.peer.Name, at, map[bool]string{true: ", with its key"}[d.keys != nil]))
	}
	switch {
	case reached == 0:
		for i := range found {
			found[i].Level = LevelFail
		}
	default:
		if keys := config.Diff(d.cfg.Values(), values); len(keys) > 0 {
			found = append(found, warned("use the same file on both nodes, and restart the one that has the old one",
				"the configuration of %s differs in %s", d.peer.Name, strings.Join(keys, ", ")))
		} else {
			found = append(found, good("%s has the same configuration", d.peer.Name))
		}
	}
	return found
}

// pingPromise is what a router in a witness's place cannot do.
const pingPromise = "a router stands in for a witness: when the nodes do not hear each other and both reach it, both may serve; " +
	"that is found when they meet again, and nothing is discarded without you"

// checkArbiter: what decides between nodes that do not hear each other.
func (d *doctor) checkArbiter(ctx context.Context) []Finding {
	w := &d.cfg.Witness
	var found []Finding
	reached := false
	for _, at := range w.Address {
		if err := d.machine.reachWitness(ctx, at); err != nil {
			r := control.Refuse(err)
			hint := r.Hint
			if hint == "" {
				hint = "start `twinbd witness` there; look at the network and at firewalls between"
			}
			found = append(found, bad(hint, "the witness does not answer at %s: %s", at, r.Message))
			continue
		}
		reached = true
		found = append(found, good("the witness answers at %s%s", at, map[bool]string{true: ", with its key"}[d.keys != nil]))
	}
	for i := range found {
		if reached && found[i].Bad() {
			found[i].Level = LevelWarn
		}
	}
	for _, ip := range w.Ping {
		found = append(found, d.pinged(ctx, ip))
	}
	if len(w.Ping) > 0 {
		found = append(found, warned("set up `twinbd witness` on any third machine", pingPromise))
	}
	if len(w.Address)+len(w.Ping) > 0 {
		return found
	}
	for _, s := range d.cfg.Services {
		if s.Fence == "" {
			found = append(found, warned("set up `twinbd witness` on any third machine", "nobody takes %s over by himself: there is no witness, no ping and no fence", s.Name))
		}
	}
	return found
}

func (d *doctor) pinged(ctx context.Context, ip netip.Addr) Finding {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err := d.machine.ping(ctx, ip)
	switch r := control.Refuse(err); {
	case err == nil:
		return good("%s answers pings", ip)
	case r.Hint != "":
		return Finding{Level: LevelSkip, Message: r.Message, Hint: r.Hint}
	default:
		return bad("choose a router that answers pings always", "%s", r.Message)
	}
}

// checkVirtual: the virtual addresses belong on an interface here that carries,
// and no stranger has them.
func (d *doctor) checkVirtual(ctx context.Context) []Finding {
	var found []Finding
	for i := range d.cfg.Services {
		s := &d.cfg.Services[i]
		if len(s.IP) == 0 {
			continue
		}
		found = append(found, d.virtualLinks(s)...)
		found = append(found, d.strangers(ctx, s)...)
	}
	return found
}

func (d *doctor) virtualLinks(s *config.Service) []Finding {
	links, err := d.machine.links(s)
	if err != nil {
		return []Finding{unseen("the interface of "+s.Name, err)}
	}
	var found []Finding
	for _, l := range links {
		switch {
		case l.Interface == "":
			found = append(found, bad(fmt.Sprintf("give one an address in it, or name the interface: %s@eth1", l.Address.Prefix),
				"no interface has the subnet of %s", l.Address.Prefix))
		case !l.Up:
			found = append(found, bad("plug the cable in, or `ip link set "+l.Interface+" up`", "%s belongs on %s, which is down or has no carrier", l.Address.IP(), l.Interface))
		default:
			found = append(found, good("%s belongs on %s", l.Address.IP(), l.Interface))
		}
	}
	return found
}

// strangers asks who has the addresses: nobody, unless one of the two nodes serves.
func (d *doctor) strangers(ctx context.Context, s *config.Service) []Finding {
	answers, err := d.machine.probe(ctx, s)
	if err != nil {
		return []Finding{unseen("whether another machine has an address of "+s.Name, err)}
	}
	served := false
	if d.status != nil {
		if st := d.status.Service(s.Name); st != nil {
			served = serves(st.Peer.State)
		}
	}
	var found []Finding
	for _, a := range answers {
		switch {
		case len(a.Hardware) == 0:
		case served && len(a.Hardware) == 1:
			found = append(found, good("%s is answered for by %s, where %s is served", a.Address.IP(), a.Hardware[0], s.Name))
		default:
			found = append(found, virtualInUse(d, a))
		}
	}
	return found
}

func virtualInUse(d *doctor, a vip.Answer) Finding {
	f := bad("give that machine another address, or choose another `ip`", "%s is in use by another machine: %v answers for it", a.Address.IP(), a.Hardware)
	if d.status == nil {
		f = warned("start `twinbd serve` here, then run the doctor again: it then knows",
			"%s is in use: %v answers for it; that is %s if it serves, else a stranger", a.Address.IP(), a.Hardware, d.peer.Name)
	}
	return f
}

func serves(s control.State) bool { return s == control.Primary || s == control.Alone }
