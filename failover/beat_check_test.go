// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"
)

// listeners are the machines of a pair, alone, and of nodes that wait.
func listeners(t testing.TB) (all []*Machine, now time.Duration) {
	for _, reach := range []func(w *world){
		func(*world) {},
		func(w *world) { w.start(beta) },
		func(w *world) { w.start(beta); w.ticks(3); _ = w.command(alpha, CommandPrim); w.ticks(10) },
		func(w *world) {
			w.start(beta)
			w.ticks(3)
			_ = w.command(alpha, CommandPrim)
			w.ticks(10)
			w.cut(alpha, beta)
			w.cut(beta, alpha)
			w.ticks(10)
		},
	} {
		w := newWorld(ByWitness)
		w.start(alpha)
		reach(w)
		for i := range w.nodes {
			if w.nodes[i].up {
				m := w.nodes[i].m
				all = append(all, &m)
				now = max(now, w.local(i))
			}
		}
	}
	return all, now
}

// hears gives beats to a machine, one after the other, and holds that what it wants
// durable can be stored.
func hears(t *testing.T, m *Machine, now time.Duration, text []byte) {
	stored := m.Durable()
	store := func(actions []Action) {
		for _, a := range actions {
			if a.Do != DoStore {
				continue
			}
			if err := a.State.check(stored); err != nil {
				t.Fatalf("%v\nafter %s", err, text)
			}
			stored = a.State
		}
	}
	for in := json.NewDecoder(bytes.NewReader(text)); ; {
		var b Beat
		if in.Decode(&b) != nil {
			return
		}
		if b.Check(now, m.boot, m.set.Node, m.set.Peer) != nil {
			continue
		}
		lease := m.lease
		store(m.Heard(now, b))
		if m.lease > max(lease, now+m.set.Timeout) {
			t.Fatalf("a lease of %v from now\nafter %s", m.lease-now, text)
		}
		now += m.set.Heartbeat
		store(m.Tick(now))
	}
}

// FuzzBeat lets a peer that has the key say anything of itself: no machine panics,
// and none comes to a state that contradicts itself, for then its node would end.
func FuzzBeat(f *testing.F) {
	all, _ := listeners(f)
	for _, m := range all {
		text, err := json.Marshal(m.compose())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte(`{"Boot":9,"Known":5,"View":{"Epoch":5,"Holder":"b","Mode":2},"Promise":5,"Offer":true}{"Boot":9,"Sent":1,"Known":9,"Disowned":9,"Held":3}`))
	f.Add([]byte(`{"Known":18446744073709551615}`))
	f.Add([]byte(`{"View":{"Epoch":3,"Holder":"gamma","Mode":1},"Known":3}`))
	f.Add([]byte(`{"Boot":1,"Serving":true,"Term":4,"Teach":4,"Mirrored":true,"Known":4}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		all, now := listeners(t)
		for _, m := range all {
			hears(t, m, now, text)
		}
	})
}

// What would end a node, or give it a lease from the future, is refused.
func TestBeatThatNobodyCanSay(t *testing.T) {
	const boot, now = 7, time.Hour
	good := Beat{
		Boot: 9, Sent: 5 * time.Hour, EchoBoot: boot, Echo: now - time.Second,
		View: View{4, "a", Pair}, Known: 6, InStep: 4, Follows: 4, Teach: 7, Promise: 6,
	}
	if err := good.Check(now, boot, "a", "b"); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(b *Beat){
		"no mode":                     func(b *Beat) { b.View.Mode = 9 },
		"no such holder":              func(b *Beat) { b.View.Holder = "gamma" },
		"holder that is no name":      func(b *Beat) { b.View.Holder = "../x" },
		"epoch that it does not know": func(b *Beat) { b.View.Epoch = 7 },
		"promise above all":           func(b *Beat) { b.Promise = 1 << 40 },
		"number out of bounds":        func(b *Beat) { b.Known = MaxEpoch + 1 },
		"taught out of bounds":        func(b *Beat) { b.Teach = 1 << 63 },
		"neither start nor stop":      func(b *Beat) { b.Wanted = 9 },
		"answer from the future":      func(b *Beat) { b.Echo = now + 1 },
		"sent before time began":      func(b *Beat) { b.Sent = -1 },
	} {
		b := good
		spoil(&b)
		if err := b.Check(now, boot, "a", "b"); !errors.Is(err, ErrBeat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	other := good
	other.EchoBoot, other.Echo = 8, 3*now // what was said to an earlier process counts nothing
	if err := other.Check(now, boot, "a", "b"); err != nil {
		t.Error(err)
	}
}
