// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

var (
	chaosTime = flag.Duration("chaos.time", 0, "how long to break things at random (`make netns` says 5m)")
	chaosSeed = flag.Uint64("chaos.seed", 0, "seed of the sequence; 0: a new one")
)

// round is how long one cluster lasts: its history is judged at the end, and a
// failure is then a short one.
const round = time.Minute

// TestChaos breaks things at random, one upon the other, and lets them heal in
// between. Whatever happens, each block behaves like one register; when all has
// healed, one node serves and the other follows without anybody's help, and at the
// end both disks are equal.
func TestChaos(t *testing.T) {
	if *chaosTime == 0 {
		t.Skip("not asked for: -chaos.time 5m")
	}
	seed := *chaosSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	for end := time.Now().Add(*chaosTime); time.Now().Before(end); seed++ {
		length := min(round, time.Until(end))
		t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) { chaos(t, seed, length) })
		if t.Failed() {
			t.Fatalf("again: make netns ARGS=\"-test.run TestChaos -chaos.time %v -chaos.seed %d\"", round, seed)
		}
	}
}

// world is a cluster in which things are broken.
type world struct {
	*cluster
	t      *testing.T
	random *rand.Rand
	began  time.Time
	story  []string
	frozen map[*node]bool
	dead   map[*node]bool
	stale  bool // the witness does not run
}

// misfortunes are what can happen, each as likely as its weight.
var misfortunes = []struct {
	weight int
	do     func(*world) string // "": not now
}{
	{4, (*world).killNode}, {3, (*world).hostDeath}, {4, (*world).freezeNode}, {4, (*world).cutWay}, {2, (*world).partPair},
	{2, (*world).isolate}, {3, (*world).pullCable}, {3, (*world).witnessAway}, {2, (*world).witnessRestarts},
	{3, (*world).switchOver}, {1, (*world).terminate}, {5, (*world).returnOne},
}

func chaos(t *testing.T, seed uint64, length time.Duration) {
	w := &world{t: t, random: rand.New(rand.NewPCG(seed, seed)), began: time.Now(),
		frozen: make(map[*node]bool), dead: make(map[*node]bool)}
	t.Cleanup(func() { // after the end of the cluster, which may be what fails
		if t.Failed() {
			t.Logf("seed %d:\n%s", seed, strings.Join(w.story, "\n"))
		}
	})
	c := newCluster(t, options{})
	c.alike = true
	w.cluster = c
	k := c.newClient(t, seed)
	for time.Since(w.began) < length {
		for range 1 + w.random.IntN(4) {
			w.happen()
			harness.Elapse(time.Duration(w.random.IntN(2500)) * time.Millisecond)
		}
		w.heal()
		w.tell("healed: %s serves", k.waitHealed(t).name)
	}
	k.stop()
	c.waitCalm(t)
	t.Logf("%d things happened", len(w.story))
}

func (w *world) tell(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf("%9v  ", time.Since(w.began).Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

// happen lets something happen that can.
func (w *world) happen() {
	sum := 0
	for _, m := range misfortunes {
		sum += m.weight
	}
	for range 20 {
		left := w.random.IntN(sum)
		for _, m := range misfortunes {
			if left -= m.weight; left < 0 {
				if what := m.do(w); what != "" {
					w.tell("%s", what)
					return
				}
				break
			}
		}
	}
}

// heal makes everything whole that is broken.
func (w *world) heal() {
	w.lan.heal(w.t)
	for _, n := range w.nodes() {
		n.plug(w.t)
		if w.frozen[n] {
			n.thaw(w.t)
		}
		if w.dead[n] {
			n.start(w.t)
		}
	}
	if w.stale {
		w.witness.start(w.t)
	}
	clear(w.frozen)
	clear(w.dead)
	w.stale = false
	w.tell("everything heals")
}

// able is a node that runs and is not frozen; nil: the one that was thought of
// is not.
func (w *world) able() *node {
	n := w.nodes()[w.random.IntN(2)]
	if w.dead[n] || w.frozen[n] {
		return nil
	}
	return n
}

func (w *world) killNode() string {
	n := w.able()
	if n == nil {
		return ""
	}
	n.kill(w.t)
	w.dead[n] = true
	return "kill " + n.name
}

func (w *world) hostDeath() string {
	n := w.able()
	if n == nil {
		return ""
	}
	n.die(w.t)
	w.dead[n] = true
	return "the host of " + n.name + " dies"
}

func (w *world) freezeNode() string {
	n := w.able()
	if n == nil {
		return ""
	}
	n.freeze(w.t)
	w.frozen[n] = true
	return "freeze " + n.name
}

// returnOne lets one node that is away return, while other things stay broken.
func (w *world) returnOne() string {
	n := w.nodes()[w.random.IntN(2)]
	switch {
	case w.frozen[n]:
		n.thaw(w.t)
		delete(w.frozen, n)
		return "thaw " + n.name
	case w.dead[n]:
		n.boot(w.t)
		delete(w.dead, n)
		return "boot " + n.name
	}
	return ""
}

var machines = []string{"alpha", "beta", "witness"}

func (w *world) cutWay() string {
	order := w.random.Perm(len(machines))
	from, to := machines[order[0]], machines[order[1]]
	w.lan.cut(w.t, from, to)
	return fmt.Sprintf("nothing passes from %s to %s", from, to)
}

func (w *world) partPair() string {
	w.lan.part(w.t, "alpha", "beta")
	return "nothing passes between alpha and beta"
}

func (w *world) isolate() string {
	n := w.nodes()[w.random.IntN(2)]
	w.lan.part(w.t, n.name, w.other(n).name)
	w.lan.part(w.t, n.name, "witness")
	return "only clients reach " + n.name
}

func (w *world) pullCable() string {
	port := fmt.Sprintf("%s%d", w.nodes()[w.random.IntN(2)].name, w.random.IntN(2))
	in := w.random.IntN(3) == 0
	w.lan.cable(w.t, port, in)
	return fmt.Sprintf("cable %s in: %t", port, in)
}

func (w *world) witnessAway() string {
	if w.stale {
		w.witness.start(w.t)
		w.stale = false
		return "the witness is back"
	}
	w.witness.kill(w.t)
	w.stale = true
	return "kill the witness"
}

func (w *world) witnessRestarts() string {
	if w.stale {
		return ""
	}
	w.witness.kill(w.t)
	w.witness.start(w.t)
	return "the witness restarts"
}

// switchOver asks for a switch wherever one may be had; most are refused.
func (w *world) switchOver() string {
	n := w.able()
	if n == nil {
		return ""
	}
	err := n.actWithin(2*time.Second, "switch", nil)
	return fmt.Sprintf("switch asked of %s: %v", n.name, err)
}

// terminate stops a node in good order; how long that takes depends on what else
// is broken.
func (w *world) terminate() string {
	n := w.able()
	if n == nil {
		return ""
	}
	if err := n.cmd.Process.Signal(os.Interrupt); err != nil {
		w.t.Fatal(err)
	}
	if !n.ends(patience) {
		w.t.Errorf("%s did not end within %v", n.name, patience)
	}
	w.dead[n] = true
	return n.name + " is told to end, and does"
}
