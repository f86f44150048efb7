// SPDX-License-Identifier: Apache-2.0

package node

import (
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/failover"
)

var all = map[string]string{"all": "true"}

// said is all that an action has said, a line each.
func said(list []control.Progress) string {
	var text strings.Builder
	for _, p := range list {
		text.WriteString(p.Text + "\n")
	}
	return text.String()
}

func (l *lab) does(name string, a control.Action) string {
	l.t.Helper()
	list, err := l.asks(name, a)
	if err != nil {
		l.t.Fatalf("%s on %s: %v", a.Verb, name, err)
	}
	return said(list)
}

func (l *lab) pair() {
	l.t.Helper()
	l.prim("alpha")
	l.waitFor("beta", control.Secondary)
	l.waitFor("alpha", control.Primary)
}

// One command on either node stops both, first the one that serves, and leaves
// `pair`; one command starts both.
func TestStopAndStartAll(t *testing.T) {
	for _, at := range []string{"alpha", "beta"} {
		t.Run("asked at "+at, func(t *testing.T) {
			l := newLab(t, "1MiB")
			l.pair()
			l.does(at, control.Action{Verb: "stop", Args: all})
			for _, name := range []string{"alpha", "beta"} {
				m := &l.nodes[name].node.service("pg").shown.Load().machine
				if v := m.Durable().View; string(m.State()) != "STOP" || v.Mode.String() != "pair" || v.Holder != "alpha" {
					t.Errorf("%s is %s, with the record %v", name, m.State(), v)
				}
			}
			l.until("both events are there", func() bool { return !l.stopped("alpha").IsZero() && !l.stopped("beta").IsZero() })
			if a, b := l.stopped("alpha"), l.stopped("beta"); a.After(b) {
				t.Errorf("alpha stopped at %v, beta at %v: want the one that serves first", a, b)
			}
			l.equal()
			l.does(at, control.Action{Verb: "start", Args: all})
			l.waitFor("alpha", control.Primary)
			l.waitFor("beta", control.Secondary)
		})
	}
}

// stopped is when a node last became STOP.
func (l *lab) stopped(name string) (at time.Time) {
	for _, e := range l.nodes[name].node.events.Since(0) {
		if e.Kind == "state" && e.New == string(control.Stop) {
			at = e.Time
		}
	}
	return at
}

// Where the peer is away, what concerns both is done here, and said.
func TestAllWithoutThePeer(t *testing.T) {
	l := newLab(t, "1MiB")
	l.pair()
	l.stop("beta")
	l.waitFor("alpha", control.Alone)
	for _, tt := range []struct {
		action     control.Action
		want, hint string
	}{
		{control.Action{Verb: "maintenance", Args: map[string]string{"on": "true"}}, "maintenance of pg is on on alpha only; on beta nothing was done: beta is not reached", "run this command again"},
		{control.Action{Verb: "stop", Args: all}, "pg is stopped on alpha only; on beta nothing was done: beta is not reached", "`twinbd stop pg` there"},
		{control.Action{Verb: "start", Args: all}, "pg is started on alpha only; on beta nothing was done: beta is not reached", "`twinbd start pg` there"},
	} {
		_, err := l.asks("alpha", tt.action)
		if r := control.Refuse(err); r == nil || !strings.HasPrefix(r.Message, tt.want) || !strings.Contains(r.Hint, tt.hint) {
			t.Errorf("%s: %v", tt.action.Verb, err)
		}
	}
	if !l.nodes["alpha"].node.Status().Services[0].Maintenance {
		t.Error("maintenance is not on at alpha")
	}
	_, err := l.asks("alpha", control.Action{Verb: "split", Volume: "data"})
	if err == nil || !strings.Contains(err.Error(), "beta is not reached") {
		t.Errorf("split: %v", err)
	}
}

// A switch is asked at either node, and says how long clients waited.
func TestSwitchFromEitherNode(t *testing.T) {
	l := newLab(t, "1MiB")
	l.pair()
	from, to := "alpha", "beta"
	for _, at := range []string{"beta", "beta"} { // once at the secondary, once at the primary
		text := l.does(at, control.Action{Verb: "switch"})
		if !regexp.MustCompile(to + ` serves pg; the switch took \d+m?s, clients waited \d+m?s\n`).MatchString(text) {
			t.Errorf("the switch to %s says\n%s", to, text)
		}
		l.waitFor(to, control.Primary)
		l.waitFor(from, control.Secondary)
		from, to = to, from
	}
	l.stop("beta")
	if _, err := l.asks("alpha", control.Action{Verb: "switch"}); err == nil {
		t.Error("a switch to nobody")
	}
}

// A command that has returned is in what is shown: who looks next, and takes a
// state from before it for the outcome, calls off what has just begun.
func TestCommandIsShown(t *testing.T) {
	l := newLab(t, "1MiB")
	l.pair()
	s := l.nodes["alpha"].node.service("pg")
	for i := range 500 {
		verb, on := failover.CommandAttention, i%2 == 0
		if on {
			verb = failover.CommandRest
		}
		if err := s.command(t.Context(), failover.Command{Verb: verb, Who: "test"}); err != nil {
			t.Fatal(err)
		}
		if got := s.shown.Load().machine.Durable().Maintenance; got != on {
			t.Fatalf("after command %d, maintenance is shown as %t, want %t", i, got, on)
		}
	}
}

// Maintenance is for both nodes.
func TestMaintenanceOfBoth(t *testing.T) {
	l := newLab(t, "1MiB")
	l.pair()
	for _, on := range []bool{true, false} {
		args := map[string]string{"on": map[bool]string{true: "true", false: "false"}[on]}
		l.does("beta", control.Action{Verb: "maintenance", Args: args})
		for name, r := range l.nodes {
			if got := r.node.Status().Services[0].Maintenance; got != on {
				t.Errorf("maintenance at %s is %t, want %t", name, got, on)
			}
		}
	}
}

// A node takes from its peer what concerns both, and nothing else.
func TestPassTakesFewVerbs(t *testing.T) {
	l := newLab(t, "1MiB")
	s := l.nodes["alpha"].node.service("pg")
	for verb, want := range map[string]string{
		"primforce": `beta does not take "primforce" from its peer`,
		"verify":    `beta does not take "verify" from its peer`,
	} {
		if err := s.pass(t.Context(), control.Action{Verb: verb, Service: "pg"}, func(control.Progress) {}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", verb, err)
		}
	}
	if err := s.pass(t.Context(), control.Action{Verb: "stop", Service: "mail"}, nil); err == nil || !strings.Contains(err.Error(), `service "mail" is not in the configuration of beta`) {
		t.Errorf("another service: %v", err)
	}
}

// The clock of the pause: what counts is the last time that it began to serve.
func TestServedSince(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(s), 0) }
	state := func(s int, old, new string) control.Event {
		return control.Event{Time: at(s), Service: "pg", Kind: "state", Old: old, New: new}
	}
	right := func(s int, old, new string) control.Event {
		return control.Event{Time: at(s), Service: "pg", Kind: "right", Old: old, New: new}
	}
	for name, tt := range map[string]struct {
		events []control.Event
		want   int // 0: it does not serve
	}{
		"never":          {nil, 0},
		"serves":         {[]control.Event{state(1, "WAIT", "ALONE"), state(3, "ALONE", "PRIM")}, 1},
		"lease later":    {[]control.Event{state(1, "WAIT", "PRIM"), right(2, "none", "pair")}, 2},
		"no longer":      {[]control.Event{state(1, "WAIT", "PRIM"), state(2, "PRIM", "SECOND"), right(3, "none", "pair")}, 0},
		"again":          {[]control.Event{state(1, "WAIT", "PRIM"), state(2, "PRIM", "WAIT"), state(5, "WAIT", "ALONE")}, 5},
		"another's":      {[]control.Event{{Time: at(1), Service: "mail", Kind: "state", Old: "WAIT", New: "PRIM"}}, 0},
		"before, paused": {[]control.Event{right(1, "none", "pair"), state(2, "SECOND", "PRIM")}, 2},
	} {
		got, ok := servedSince(tt.events, "pg")
		if ok != (tt.want != 0) || ok && !got.Equal(at(tt.want)) {
			t.Errorf("%s: %v, %t", name, got, ok)
		}
	}
	events := []control.Event{right(1, "pair", "none"), right(4, "pair", "none"), right(6, "pair", "none")}
	if got, ok := endedSince(events, "pg", at(2)); !ok || !got.Equal(at(4)) {
		t.Errorf("ended at %v, %t", got, ok)
	}
	if _, ok := endedSince(events, "pg", at(7)); ok {
		t.Error("ended before it began")
	}
}
