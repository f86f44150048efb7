// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestScenarios plays testdata/machine/*.txt: the traces from which the rules on
// who may serve were made, and what comes of them now. A line is a command; below
// it, indented, is what it leads to; "#" begins a comment. All that is due after
// a command happens before the next.
//
//	tick N                   let so many heartbeats pass
//	cut A>B, heal A>B, heal  lines; cut A-B is both ways
//	hold A>B, deliver, drop  what is sent there is put aside; it arrives; it never does
//	double A>B               what is sent there arrives, and a copy is put aside
//	crash N, power N, start N, freeze N, thaw N
//	break                    the volumes lose their session
//	stall, go                the data path stands still, and goes on
//	disk N                   N's disk fails
//	write wK N, flush N      a client's
//	keep, restore            a copy of the witness's records is made; they are put back
//	jump N D                 N's clock jumps forward
//	switch N, stop N, stopall N, run N, prim N, primforce N
//	arbiter fence            first of all: another pair, without a witness
//	state                    how things stand
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/machine/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { scenario(t, file) })
	}
}

func scenario(t *testing.T, file string) {
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got, err := transcript(want)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	if *rewrite {
		if err := os.WriteFile(file, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: -rewrite after a look at this:\n%s", file, got)
	}
}

// transcript plays a scenario, and returns it with what comes of it.
func transcript(script []byte) ([]byte, error) {
	w := pairWorld(ByWitness)
	var got bytes.Buffer
	w.trace = func(format string, args ...any) {
		if line, ok := strings.CutPrefix(fmt.Sprintf(format, args...), "    "); ok && worthTelling(line) {
			fmt.Fprintf(&got, "    %s\n", line)
		}
	}
	for lines := bufio.NewScanner(bytes.NewReader(script)); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "    ") {
			continue
		}
		fmt.Fprintln(&got, line)
		line, _, _ = strings.Cut(line, "#")
		words := strings.Fields(line)
		if len(words) == 2 && words[0] == "arbiter" {
			by := map[string]Arbiter{"ping": ByPing, "fence": ByFence, "nobody": ByNobody}[words[1]]
			trace := w.trace
			w = pairWorld(by)
			w.trace = trace
			continue
		}
		if len(words) > 0 {
			if err := w.play(words, &got); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
		}
		if w.broken != "" {
			return nil, fmt.Errorf("%q: %s", line, w.broken)
		}
	}
	return got.Bytes(), nil
}

// worthTelling leaves out what is written all the time.
func worthTelling(line string) bool {
	for _, what := range []string{": store", ": event right", ": right pair", ": up", ": show", ": connect", ": hide"} {
		if strings.Contains(line, what) {
			return false
		}
	}
	return true
}

func (w *world) play(words []string, out *bytes.Buffer) error {
	where := slices.Index(places[:], words[len(words)-1])
	do := map[string]deed{
		"crash": crash, "power": power, "start": restart, "freeze": freeze, "thaw": thaw, "disk": failDisk,
		"switch": opSwitch, "stop": opStop, "stopall": opStopAll, "run": opStart, "stall": stallData, "go": freeData,
	}
	switch verb := words[0]; {
	case verb == "tick":
		n, err := strconv.Atoi(words[1])
		if err != nil {
			return err
		}
		w.ticks(n)
	case (verb == "crash" || verb == "power") && where == third:
		w.choose(choice{do: failWitness})
	case verb == "start" && where == third:
		w.choose(choice{do: bringWitness})
	case verb == "keep":
		w.kept = w.seat.Record
	case verb == "restore":
		w.seat.Record = w.kept
	case verb == "jump":
		d, err := time.ParseDuration(words[2])
		if err != nil {
			return err
		}
		w.nodes[place(words[1])].clock += d
	case verb == "replace":
		w.replace(where)
	case verb == "linger": // told to stop; the application is slow to go down, until what is late is delivered
		w.choose(choice{do: opStop, a: uint8(where)})
		w.delayed(func(e *event) bool { return e.kind == evDown })
		return nil
	case verb == "break":
		w.lose(alpha)
		w.lose(beta)
		w.after()
	case verb == "state":
		w.tellState(out)
	case verb == "write":
		k, err := strconv.Atoi(strings.TrimPrefix(words[1], "w"))
		if err != nil {
			return err
		}
		w.choose(choice{write, uint8(where), uint8(k)})
	case verb == "flush":
		w.wantFlush = true
		w.after()
	case verb == "prim" || verb == "primforce":
		return w.command(where, Verb(verb))
	case verb == "cut" || verb == "heal" || verb == "hold" || verb == "double":
		return w.playLine(words)
	case verb == "deliver" || verb == "drop":
		list := w.aside
		w.aside = nil
		if verb == "deliver" {
			w.queue = append(w.queue, list...)
		}
	default:
		d, ok := do[verb]
		if !ok {
			return fmt.Errorf("unknown command")
		}
		w.choose(choice{do: d, a: uint8(max(0, where))})
	}
	w.settle()
	return nil
}

// replace is what node.HandOn does, and its successor: everything is answered and
// flushed before the process ends.
func (w *world) replace(i int) {
	w.demote(i)
	w.crash(i, false)
	w.start(i)
	set := w.settings(i)
	set.Succeeds = true
	n := &w.nodes[i]
	n.m = NewMachine(set, n.boot, w.local(i), n.durable)
	w.after()
}

// playLine sets what happens to what is sent from one place to another.
func (w *world) playLine(words []string) error {
	to := map[string]lineState{"cut": cut, "hold": slow, "heal": open, "double": doubled}[words[0]]
	if len(words) == 1 {
		w.lines = [3][3]lineState{}
		return nil
	}
	for _, word := range words[1:] {
		from, dest, oneWay := strings.Cut(word, ">")
		if !oneWay {
			from, dest, _ = strings.Cut(word, "-")
		}
		x, y := place(from), place(dest)
		if x < 0 || y < 0 {
			return fmt.Errorf("no such line")
		}
		w.lines[x][y] = to
		if !oneWay {
			w.lines[y][x] = to
		}
	}
	return nil
}

func (w *world) tellState(out *bytes.Buffer) {
	for i := range w.nodes {
		n := &w.nodes[i]
		if !n.up {
			fmt.Fprintf(out, "    %s is down\n", places[i])
			continue
		}
		serves := ""
		if w.serves(i) {
			serves = ", serves"
		}
		fmt.Fprintf(out, "    %s %s%s, has %03b: %s\n", places[i], n.m.State(), serves, n.engine.applied, n.m.Reason())
	}
	fmt.Fprintf(out, "    record: %v; acknowledged %03b, flushed %03b\n", w.seat.Record.View(), w.truth.acked, w.truth.flushed)
}
