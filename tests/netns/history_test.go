// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// judge holds that what the client saw could have come from one disk.
func (k *client) judge(t testing.TB) {
	t.Helper()
	if k.split {
		return
	}
	for _, fault := range k.faults {
		t.Error(fault)
	}
	all := k.operations()
	answered := 0
	for _, o := range all {
		if o.answered {
			answered++
		}
	}
	if answered == 0 {
		t.Error("the client got no answer at all")
	}
	for b := range blocks {
		if why := linear(all, b); why != "" {
			t.Errorf("block %d: %s", b, why)
		}
	}
	t.Logf("client: %d operations, %d answered, in %v", len(all), answered, k.now().Round(time.Millisecond))
}

// register is one block, as porcupine knows it: what was written last.
var register = porcupine.Model{
	Init: func() any { return uint64(0) },
	Step: func(state, input, output any) (bool, any) {
		if o := input.(*operation); o.write {
			return true, o.value
		}
		return state == output, state
	},
	DescribeOperation: func(input, output any) string { return input.(*operation).String() },
}

// judgeLimit bounds the search for one block; it is done in milliseconds.
const judgeLimit = time.Minute

// linear says why no register could have given the answers about a block, or "".
func linear(all []operation, number int) string {
	ops := about(all, number)
	var history []porcupine.Operation
	for i := range ops {
		o := &ops[i]
		history = append(history, porcupine.Operation{
			ClientId: o.worker, Input: o, Output: o.value, Call: int64(o.began), Return: int64(o.ended),
		})
	}
	switch porcupine.CheckOperationsTimeout(register, history, judgeLimit) {
	case porcupine.Ok:
		return ""
	case porcupine.Unknown:
		return fmt.Sprintf("not decided within %v", judgeLimit)
	}
	return "no single disk could have answered like this: " + stale(ops)
}

// about are the operations on a block that say something, with the end of those
// that were not answered. A write whose value nobody has read may as well never
// have happened; one that was read had happened by the end of that read. Nothing
// else can be concluded, and nothing is lost: each value is written once.
func about(all []operation, number int) (ops []operation) {
	read := make(map[uint64]time.Duration) // value → when a read of it had ended
	for _, o := range all {
		if o.block == number && !o.write && o.answered {
			if at, ok := read[o.value]; !ok || o.ended < at {
				read[o.value] = o.ended
			}
		}
	}
	for _, o := range all {
		at, seen := read[o.value]
		switch {
		case o.block != number:
		case o.answered:
			ops = append(ops, o)
		case o.write && seen:
			o.ended = max(at, o.began)
			ops = append(ops, o)
		}
	}
	return ops
}

// stale finds a read that shows the mistake: it began after a newer write than
// the one that it returned had been acknowledged.
func stale(ops []operation) string {
	writes := make(map[uint64]*operation)
	var answered []*operation
	for i := range ops {
		if o := &ops[i]; o.write {
			writes[o.value] = o
			if o.answered {
				answered = append(answered, o)
			}
		}
	}
	slices.SortFunc(answered, func(a, b *operation) int { return cmp.Compare(a.ended, b.ended) })
	for i := range ops {
		read := &ops[i]
		if read.write {
			continue
		}
		source, initial := writes[read.value], time.Duration(math.MinInt64)
		if source != nil {
			initial = source.ended
		} else if read.value != 0 {
			return fmt.Sprintf("%v returned what nobody wrote", read)
		}
		for _, w := range answered {
			if w.ended < read.began && w.began > initial {
				return fmt.Sprintf("%v came after %v", read, w)
			}
		}
	}
	return "see the history"
}

func (o *operation) String() string {
	kind := "read"
	if o.write {
		kind = "write"
	}
	answer := "answered"
	if !o.answered {
		answer = "not answered"
	}
	return fmt.Sprintf("%s of %d at %s by worker %d, %v to %v, %s", kind, o.value, o.server, o.worker,
		o.began.Round(100*time.Microsecond), o.ended.Round(100*time.Microsecond), answer)
}

// waitServed waits until a node has acknowledged a write that began after a
// moment, and holds that the client's neighbour table then leads to it.
func (k *client) waitServed(t testing.TB, n *node, since time.Duration) (at time.Duration) {
	t.Helper()
	harness.WaitFor(t, n.name+" to serve the client", patience, func() error {
		if at = k.served(n.name, since); at != 0 {
			return nil
		}
		s, err := n.status()
		if err != nil {
			return err
		}
		return fmt.Errorf("%s is %s (%s): %s %s", n.name, s.State, s.Colour, s.Reason, problems(s))
	})
	k.leadsTo(t, n)
	return at
}

// waitHealed waits until a pair serves the client, whichever node does: what one saw
// before everything was whole may have it give the service to the other yet.
func (k *client) waitHealed(t testing.TB) (primary *node) {
	t.Helper()
	since := k.now()
	harness.WaitFor(t, "a pair that serves the client", 2*patience, func() (err error) {
		if primary, err = k.cluster.pair(); err == nil && k.served(primary.name, since) == 0 {
			err = fmt.Errorf("%s has not served the client", primary.name)
		}
		return err
	})
	k.leadsTo(t, primary)
	return primary
}

// leadsTo holds that the client's neighbour table leads to a node.
func (k *client) leadsTo(t testing.TB, n *node) {
	t.Helper()
	has := n.space.hardware(t, "eth0")
	if to, err := k.cluster.client.neighbour(virtual); err != nil || to.String() != has.String() {
		t.Errorf("the client's neighbour table leads to %v (%v), and %s, which serves, has %v", to, err, n.name, has)
	}
}

func problems(s *control.ServiceStatus) string {
	var all []string
	for _, p := range s.Problems {
		all = append(all, p.Message)
	}
	return strings.Join(all, "; ")
}

// Not before the time of a judgement can one rely on it: these are histories that
// are right, and that are not.
func TestJudge(t *testing.T) {
	ms := time.Millisecond
	w := func(value uint64, began, ended time.Duration) operation {
		return operation{write: true, value: value, began: began * ms, ended: ended * ms, answered: ended > 0}
	}
	r := func(value uint64, began, ended time.Duration) operation {
		return operation{value: value, began: began * ms, ended: ended * ms, answered: true}
	}
	for name, c := range map[string]struct {
		history []operation
		right   bool
	}{
		"in order":                   {[]operation{r(0, 0, 1), w(1, 2, 3), r(1, 4, 5)}, true},
		"while it is written":        {[]operation{w(1, 0, 9), r(0, 1, 2), r(1, 3, 4)}, true},
		"back to what was before":    {[]operation{w(1, 0, 9), r(1, 1, 2), r(0, 3, 4)}, false},
		"stale":                      {[]operation{w(1, 0, 1), w(2, 2, 3), r(1, 4, 5)}, false},
		"lost":                       {[]operation{w(1, 0, 1), r(0, 2, 3)}, false},
		"unanswered, not happened":   {[]operation{w(1, 0, 1), w(2, 2, 0), r(1, 4, 5)}, true},
		"unanswered, happened":       {[]operation{w(1, 0, 1), w(2, 2, 0), r(1, 4, 5), r(2, 6, 7)}, true},
		"unanswered, and taken back": {[]operation{w(1, 0, 1), w(2, 2, 0), r(2, 4, 5), r(1, 6, 7)}, false},
		"from nowhere":               {[]operation{r(7, 0, 1)}, false},
	} {
		if why := linear(c.history, 0); (why == "") != c.right {
			t.Errorf("%s: %q", name, why)
		}
	}
}
