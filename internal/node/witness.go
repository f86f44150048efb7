// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/config"
)

// The way to the witness: straight, else through the peer, who cannot read or
// change what passes (rule 19: each relays for the other).

func (n *Node) openWitness() error {
	if len(n.cfg.Witness.Address) == 0 {
		return nil
	}
	var err error
	n.client, err = failover.NewClient(failover.ClientConfig{
		Cluster: n.cfg.Cluster, From: n.self.Name, Addresses: []string{witnessName}, Dial: n.dialWitness,
	})
	n.witness = n.client
	return err
}

const witnessName = config.WitnessName

// relayLead is by how much the straight ways are preferred.
const relayLead = 50 * time.Millisecond

// wayTaken is how one way to the witness ended.
type wayTaken struct {
	conn net.Conn
	err  error
}

// dialWitness tries all ways at once and takes the first at whose end is the
// witness: an exchange with it lasts shorter than it takes to notice that a way
// is cut, and one after the other the first that is would keep all others back.
func (n *Node) dialWitness(ctx context.Context, network, _ string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	count := len(n.cfg.Witness.Address) + len(n.peer.Address)
	taken := make(chan wayTaken, count)
	try := func(lead time.Duration, dial func() (net.Conn, error)) {
		wait(ctx, lead)
		conn, err := dial()
		if err == nil && n.keys != nil {
			conn, err = n.keys.Connect(ctx, conn, witnessName)
		}
		taken <- wayTaken{conn, err}
	}
	for _, at := range n.cfg.Witness.Address {
		go try(0, func() (net.Conn, error) { return new(net.Dialer).DialContext(ctx, network, at) })
	}
	for _, at := range n.peer.Address {
		go try(relayLead, func() (net.Conn, error) {
			return n.peers.dialAt(ctx, at, n.peers.preamble(preamble{Kind: kindRelay}))
		})
	}
	var errs []error
	for left := count - 1; left >= 0; left-- {
		w := <-taken
		if w.err == nil {
			go hangUpLate(taken, left)
			return w.conn, nil
		}
		errs = append(errs, w.err)
	}
	return nil, errors.Join(errs...)
}

// hangUpLate closes what was connected too late to be taken.
func hangUpLate(taken <-chan wayTaken, count int) {
	for range count {
		if w := <-taken; w.err == nil {
			w.conn.Close()
		}
	}
}

// relay puts the peer through to the witness until either hangs up.
func (n *Node) relay(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	var witness net.Conn
	err := errors.New("the witness has no address")
	for _, at := range n.cfg.Witness.Address {
		dialling, cancel := context.WithTimeout(ctx, dialTimeout)
		witness, err = new(net.Dialer).DialContext(dialling, "tcp", at)
		cancel()
		if err == nil {
			break
		}
	}
	if err != nil {
		return
	}
	defer witness.Close()
	defer context.AfterFunc(ctx, func() { conn.Close(); witness.Close() })()
	var both sync.WaitGroup
	both.Go(func() { io.Copy(witness, conn); witness.Close(); conn.Close() })
	both.Go(func() { io.Copy(conn, witness); witness.Close(); conn.Close() })
	both.Wait()
}

// noteWitness remembers how the last exchange went, and logs it when it is news.
func (n *Node) noteWitness(err error) {
	if errors.Is(err, context.Canceled) {
		return // replaced by a newer one
	}
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	n.mu.Lock()
	news := problem != "" && n.witnessProblem == ""
	n.witnessProblem = problem
	n.mu.Unlock()
	if news {
		n.log.Warn("witness not reached", "error", problem)
	}
}
