// SPDX-License-Identifier: Apache-2.0

//go:build linux

package hostile

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/internal/crowd"
	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/tests/harness"
)

// Strangers at the witness, with keys and without: nodes are answered, and one that
// restarts gets in.
func TestStrangersAtTheWitness(t *testing.T) {
	for name, insecure := range map[string]bool{"keys": false, "no keys": true} {
		t.Run(name, func(t *testing.T) {
			lab := harness.NewPair(t, harness.Options{Insecure: insecure})
			own, err := foreignKeys(t)
			if err != nil {
				t.Fatal(err)
			}
			greeting := append([]byte("TBDW\x00\x01\x00\x00"), make([]byte, 40)...)
			if !insecure {
				greeting = []byte{22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3}
			}
			all := append(attacks(greeting), attack{"foreign keys", 200, 60, func(c net.Conn, _ *rand.Rand) {
				c.SetDeadline(time.Now().Add(5 * time.Second))
				s := tls.Client(c, own)
				if s.Handshake() == nil {
					s.Read(make([]byte, 1))
				}
			}})
			h := serveOneself(lab.Alpha.Dial(t, data))
			if insecure {
				all = all[1:3]
			}
			for _, a := range all {
				w := watch(t, "witness", lab.Witness)
				dial := func() (net.Conn, error) { return net.DialTimeout("tcp", lab.WitnessAddress(), time.Second) }
				a.carryOut(t, dial, func() {
					w.look(t)
					harness.Elapse(10 * time.Millisecond)
				})
				w.within(t, bounds{memory: 64 << 20, descriptors: failover.DefaultMaxConnections + crowd.Leaving + 16, log: 16 << 10})
			}
			// Who goes on alone, and who restarts, asks the witness in the middle of it.
			lift := besiege(t, 200, func() (net.Conn, error) { return net.DialTimeout("tcp", lab.WitnessAddress(), time.Second) })
			lab.Beta.Kill(t)
			lab.Alpha.WaitState(t, control.Alone)
			lab.Beta.Start(t)
			lab.WaitPaired(t, lab.Alpha)
			lift()
			h.end(t)
		})
	}
}

// Whoever may open the control socket, and does so without end: the operator is
// answered all the same.
func TestCrowdAtTheControlSocket(t *testing.T) {
	lab := harness.NewPair(t, harness.Options{})
	const status = "GET /api/v1/status HTTP/1.1\r\nHost: twinbd\r\n\r\n"
	const follow = "GET /api/v1/events?follow=true HTTP/1.1\r\nHost: twinbd\r\n\r\n"
	act := fmt.Sprintf("POST /api/v1/%s/prim HTTP/1.1\r\nHost: twinbd\r\nContent-Length: 100\r\n\r\n{", harness.Service)
	all := append(attacks([]byte(status)),
		attack{"asks and reads no answers", 600, 200, func(c net.Conn, _ *rand.Rand) {
			c.Write([]byte(strings.Repeat(status, 500)))
		}},
		attack{"half a body", 600, 200, func(c net.Conn, _ *rand.Rand) { c.Write([]byte(act)) }},
		attack{"follows events", 600, 300, func(c net.Conn, _ *rand.Rand) { c.Write([]byte(follow)) }},
	)
	h := serveOneself(lab.Alpha.Dial(t, data))
	for _, a := range all {
		w := watch(t, "alpha", &lab.Alpha.Process)
		dial := func() (net.Conn, error) { return net.DialTimeout("unix", lab.Alpha.ControlSocket(), time.Second) }
		a.carryOut(t, dial, func() {
			w.look(t)
			harness.WaitFor(t, "the operator to be answered", patience, func() error {
				_, err := lab.Alpha.Status()
				return err
			})
		})
		w.within(t, bounds{memory: 128 << 20, descriptors: 200, log: 16 << 10})
	}
	h.end(t)
}

// A node that runs out of descriptors lives, serves those that it has, and takes
// others as soon as it can.
func TestOutOfDescriptors(t *testing.T) {
	lab := harness.NewLab(t, harness.Options{})
	for _, n := range lab.Nodes() {
		n.MustRun(t, "create", "--blank")
	}
	lab.Alpha.LimitDescriptors(90)
	lab.Witness.LimitDescriptors(40)
	lab.Start(t)
	lab.Alpha.MustRun(t, "prim", harness.Service)
	lab.WaitPaired(t, lab.Alpha)
	h := serveOneself(lab.Alpha.Dial(t, data))
	network, address := lab.Alpha.ExportAddress(data)
	a, w := watch(t, "alpha", &lab.Alpha.Process), watch(t, "witness", lab.Witness)
	lift := besiege(t, 300, func() (net.Conn, error) { return net.DialTimeout(network, address, time.Second) })
	harness.WaitFor(t, "alpha to be out of descriptors", patience, func() error {
		if a.look(t); a.most.Descriptors < 90 {
			return fmt.Errorf("it has %d", a.most.Descriptors)
		}
		return nil
	})
	attack{"at the other ports", 600, 300, func(net.Conn, *rand.Rand) {}}.carryOut(t, func() (net.Conn, error) {
		switch rand.IntN(3) {
		case 0:
			return net.DialTimeout("tcp", lab.Alpha.Address(), time.Second)
		case 1:
			return net.DialTimeout("unix", lab.Alpha.ControlSocket(), time.Second)
		}
		return net.DialTimeout("tcp", lab.WitnessAddress(), time.Second)
	}, func() {
		a.look(t)
		w.look(t)
		harness.Elapse(10 * time.Millisecond)
	})
	lift()
	h.end(t)
	newcomer(t, func(ctx context.Context) (*nbd.Client, error) { return nbd.Dial(ctx, lab.Alpha.URI(data), nil) })
	lab.WaitPaired(t, lab.Alpha)
	a.within(t, bounds{memory: 96 << 20, descriptors: 90, log: 32 << 10})
	w.within(t, bounds{memory: 64 << 20, descriptors: 40, log: 32 << 10})
	t.Logf("the nodes are a pair; alpha had %d of 90 descriptors", a.most.Descriptors)
}
