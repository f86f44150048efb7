// SPDX-License-Identifier: Apache-2.0

package crowd

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// A newcomer always gets in; who is sent away is whom it should be.
func TestList(t *testing.T) {
	var gone []string
	l := &List{Most: 3, MostPerHost: 2}
	enter := func(host, name string) *Guest { return l.Enter(host, func() { gone = append(gone, name) }) }
	first := enter("a", "first")
	second := enter("a", "second")
	third := enter("a", "third") // the host has two already
	honest := enter("b", "honest")
	honest.Rank(1)
	enter("c", "fourth") // the list is full: the host with most gives one
	enter("d", "fifth")  // all have one: who was of no use for the longest
	third.Seen()
	second.Seen() // has gone
	enter("e", "sixth")
	if want := "first second third fourth"; strings.Join(gone, " ") != want {
		t.Errorf("sent away: %v, want %s", gone, want)
	}
	if l.Len() != 3 || l.Sent() != 4 || len(l.hosts) != 3 {
		t.Errorf("%d are there, of %d hosts, and %d were sent away", l.Len(), len(l.hosts), l.Sent())
	}
	first.Leave()
	honest.Leave()
	honest.Leave()
	if l.Len() != 2 {
		t.Errorf("%d are there after one has left", l.Len())
	}
}

// Whatever comes and goes, the limits hold, and a higher rank is never sent away
// for want of room while a lower one stays.
func TestListAtRandom(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	l := &List{Most: 20, MostPerHost: 12}
	var there []*Guest
	for range 20_000 {
		switch rng.IntN(4) {
		case 0, 1:
			lowest := 9
			host := fmt.Sprint(rng.IntN(5))
			for g := range l.guests {
				if l.hosts[host] < l.MostPerHost || g.host == host {
					lowest = min(lowest, g.rank)
				}
			}
			var g *Guest
			g = l.Enter(host, func() {
				if g.rank > lowest {
					t.Fatalf("rank %d was sent away, and %d stayed", g.rank, lowest)
				}
			})
			there = append(there, g)
		case 2:
			if len(there) > 0 {
				there[rng.IntN(len(there))].Rank(rng.IntN(3))
			}
		case 3:
			if len(there) > 0 {
				there[rng.IntN(len(there))].Leave()
			}
		}
		total := 0
		for host, n := range l.hosts {
			if total += n; n > l.MostPerHost || n == 0 {
				t.Fatalf("%d of host %s", n, host)
			}
		}
		if total != l.Len() || total > l.Most {
			t.Fatalf("%d by host, %d in all", total, l.Len())
		}
	}
}

// What others can cause at will fills no log, and what was left out is said.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := Quiet(slog.New(slog.NewTextHandler(&out, nil))).With("port", 1)
		for i := range 10_000 {
			log.Warn("refused", "who", i)
		}
		log.Warn("something else")
		if n := strings.Count(out.String(), "\n"); n != Burst+1 {
			t.Errorf("%d lines were written", n)
		}
		out.Reset()
		<-time.After(Every)
		log.Warn("refused")
		log.Warn("refused")
		if got := out.String(); strings.Count(got, "\n") != 1 || !strings.Contains(got, fmt.Sprintf(`"left out"=%d`, 10_000-Burst)) || !strings.Contains(got, "port=1") {
			t.Errorf("after a while: %s", got)
		}
	})
}

// failing is a listener that fails for a while, as one does that is out of
// descriptors.
type failing struct {
	net.Listener
	times int
}

func (f *failing) Accept() (net.Conn, error) {
	if f.times--; f.times >= 0 {
		return nil, errors.New("too many open files")
	}
	return f.Listener.Accept()
}

// An error of accept ends nothing.
func TestAcceptGoesOn(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	ended, served := make(chan error, 1), make(chan net.Conn, 1)
	go func() {
		ended <- Accept(t.Context(), &failing{l, 4}, slog.New(slog.NewTextHandler(&out, nil)), 1, func(c net.Conn) { served <- c })
	}()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	(<-served).Close()
	l.Close()
	if err := <-ended; !errors.Is(err, net.ErrClosed) || strings.Count(out.String(), "accept failed") != 4 {
		t.Errorf("%v, and in the log\n%s", err, &out)
	}
}
