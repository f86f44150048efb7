// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/loop"
	"github.com/twinbd/twinbd/nbd"
)

// export is a volume's NBD export: it listens always, and lets clients in only
// where the volume is served.
type export struct {
	volume   *volume
	listener net.Listener
	gate     *nbd.Gate
	config   nbd.HandshakeConfig
}

// maxClients bounds the connections of one export; maxHandshakes those of all
// exports that have not become one, so that many volumes do not take all
// descriptors, and fewHandshakes how many each export may have at least.
const (
	maxClients    = 32
	maxHandshakes = 256
	fewHandshakes = 16
)

func openExport(v *volume) (*export, error) {
	n := v.service.node
	at := v.cfg.Export[n.self.Name]
	listener, err := listenExport(at, v.service.floats(at))
	if err != nil {
		return nil, fmt.Errorf("export of %s: %w", v.cfg.Name, err)
	}
	x := &export{volume: v, listener: listener, gate: nbd.NewGate(nbd.GateConfig{
		Connections: maxClients, Handshakes: max(maxHandshakes/max(len(n.volumes), 1), fewHandshakes), Logger: v.log,
	})}
	x.config = nbd.HandshakeConfig{Exports: x, ForceTLS: nbd.NeedsTLS(listener.Addr())}
	if n.keys != nil {
		x.config.TLS = n.keys.Server(n.cfg.KeyNames()...)
	} else if x.config.ForceTLS {
		listener.Close()
		return nil, &control.Refusal{
			Message: fmt.Sprintf("export of %s: %s can be reached from other machines and there are no keys", v.cfg.Name, at),
			Hint:    "make keys with `twinbd init`, or export on a Unix socket or 127.0.0.1",
		}
	}
	return x, nil
}

// floats reports whether an export is bound to a virtual address of the service:
// then it listens before the address is there.
func (s *service) floats(at config.Export) bool {
	host, _, err := net.SplitHostPort(at.Address)
	if err != nil {
		return false
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && slices.ContainsFunc(s.cfg.IP, func(v config.VirtualIP) bool { return v.Prefix.Addr() == ip })
}

func listenExport(at config.Export, floats bool) (net.Listener, error) {
	if at.Network != "unix" {
		var how net.ListenConfig
		if floats {
			how.Control = freebind
		}
		l, err := how.Listen(context.Background(), at.Network, at.Address)
		if err != nil {
			return nil, &control.Refusal{Message: err.Error(), Hint: "another process has the port, or the address is not this machine's"}
		}
		return l, nil
	}
	if err := os.MkdirAll(filepath.Dir(at.Address), 0o755); err != nil {
		return nil, err
	}
	if c, err := net.Dial("unix", at.Address); err == nil {
		c.Close()
		return nil, &control.Refusal{Message: fmt.Sprintf("%s is in use by another process", at.Address), Hint: "stop it, or give the export another path"}
	}
	if err := os.Remove(at.Address); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("remove what is left of %s: %w", at.Address, err)
	}
	l, err := net.Listen("unix", at.Address)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(at.Address, 0o660)
}

func (x *export) run(ctx context.Context) error {
	return x.gate.Serve(ctx, x.listener, func(ctx context.Context, conn net.Conn) (*nbd.Negotiated, error) {
		x.volume.service.app.addresses.awaitMinded(ctx)
		return nbd.Handshake(ctx, loop.Wrap(conn), x.config)
	}, x.volume.admit)
}

// Lookup lets a client in where the volume is served, and else says where it is.
func (x *export) Lookup(name string) (nbd.Export, error) {
	v := x.volume
	if name != "" && name != v.cfg.Name {
		return nbd.Export{}, &nbd.Refusal{Reply: nbd.ReplyUnknown, Message: fmt.Sprintf("this export is %q", v.cfg.Name)}
	}
	if s := v.status.Load(); !s.Primary {
		return nbd.Export{}, &nbd.Refusal{Reply: nbd.ReplyPolicy, Message: v.service.whereServed(v)}
	}
	return nbd.Export{
		Name: v.cfg.Name, Description: "twinbd volume of service " + v.cfg.Service, Size: v.cfg.Size,
		Contexts: block.ContextAllocation | block.ContextDirty,
	}, nil
}

// List names the export.
func (x *export) List() []string { return []string{x.volume.cfg.Name} }
