// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

var rewrite = flag.Bool("rewrite", false, "write the expected transcripts of the scenarios anew")

// TestScenarios plays testdata/scenarios/*.txt over two real engines in which
// nothing moves by itself. Commands stand in paragraphs, a line each; after
// "----" comes what they lead to. "#" begins a comment.
//
// A transcript is for people. What must hold is asserted beside it, after every
// command and at the end, so that no rewritten transcript makes a wrong thing
// pass: cover, fence at each acknowledgement, reads against the model, and at
// the end, when all is healed, disks that are alike and hold what was
// acknowledged. A scenario that ends in the operator's hands says "apart": then
// no byte may have been copied since.
//
// N is alpha or beta; blocks are 7, 7+2 (two of them), or s57+2 (two sectors).
//
//	write|fua N BLOCKS v=V     a client's; V grows
//	read|trim|zero N BLOCKS, flush N
//	deliver N                  all that is under way to N arrives
//	do N [data|meta|flush|writes]  tasks of N's disks are done, but not what they lead to
//	run                        everything goes on, but what the arbiter was asked
//	settle                     that too
//	until N done|ready|...     see until
//	cut, connect, half N       the link; half: only N hears of its end
//	crash N, powercut N keep=none|all, start N
//	prim N, primforce N, demote N, right N none|pair|alone
//	away, back                 the arbiter
//	fail N data|meta OP [once|full], hang N [data|meta], revive N, replace N, tear N, damage N header|headers|page
//	snapshot N, rollback N     of both disks of N
//	rot N BLOCK, sound N, verify N [repair], resync N, giveup N, mix N HELLO, haunt N
//	wait D                     time passes, with everything going on but tasks that hang
//	short                      the volume ends with a part of a block
//	status, disks BLOCKS, marks N BLOCKS, unsynced, held, apart
func TestScenarios(t *testing.T) {
	files, err := filepath.Glob("testdata/scenarios/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no scenarios", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := transcript(t, string(want))
			switch {
			case bytes.Equal(got, want):
			case *rewrite:
				if err := os.WriteFile(file, got, 0o644); err != nil {
					t.Fatal(err)
				}
			default:
				t.Errorf("%s: -rewrite after a look at this:\n%s", file, got)
			}
		})
	}
}

// scenario is a script that is read from a file.
type scenario struct {
	*script
	out   bytes.Buffer // of the paragraph
	told  int          // events of the trace that were looked at
	asked []*clientRequest
	last  uint64       // version written
	saved [2][2][]byte // by snapshot: data and metadata of each node
	apart [2][]byte    // what the disks held when the scenario said that they stay apart
}

// transcript plays a scenario and returns the file with what came of it.
func transcript(t tester, text string) []byte {
	s := &scenario{script: newScript(t, func(p *pair) {
		if strings.Contains(text, "\nshort\n") {
			p.short = 3 * sector
		}
	})}
	s.strict = true
	s.record.alone, s.b.inStep = false, s.record.epoch
	s.wholeness()
	s.told = len(s.trace)
	var file bytes.Buffer
	expected := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "":
			s.paragraph(&file, expected)
			expected = false
			file.WriteByte('\n')
			continue
		case line == "----":
			expected = true
			continue
		case expected:
			continue
		}
		file.WriteString(line + "\n")
		if command, _, _ := strings.Cut(line, "#"); strings.TrimSpace(command) != "" {
			s.log("> %s", line)
			s.told = len(s.trace)
			s.play(strings.Fields(command))
			s.look()
		}
	}
	s.paragraph(&file, expected)
	s.ends()
	return bytes.TrimRight(file.Bytes(), "\n")[:len(bytes.TrimRight(file.Bytes(), "\n"))+1]
}

// paragraph writes what the commands above led to.
func (s *scenario) paragraph(file *bytes.Buffer, had bool) {
	if s.out.Len() == 0 && !had {
		return
	}
	file.WriteString("----\n")
	if s.out.Len() == 0 {
		s.out.WriteString("nothing\n")
	}
	file.Write(s.out.Bytes())
	s.out.Reset()
}

func (s *scenario) tell(format string, args ...any) { fmt.Fprintf(&s.out, format+"\n", args...) }

var generations = regexp.MustCompile(`generation: \S+ -> \S+`)

// look tells what a command led to, and asserts what must hold after it.
func (s *scenario) look() {
	for ; s.told < len(s.trace); s.told++ {
		line := strings.TrimLeft(s.trace[s.told][8:], " ")
		for _, kind := range []string{" session: ", " disk: ", " generation: ", " role: ", " verify: ", "granted", "refused", "record names", "pair in epoch", "ends the session"} {
			if strings.Contains(line, kind) && !strings.Contains(line, "-> draining") && !strings.Contains(line, "-> greeting") {
				s.tell("%s", strings.TrimSuffix(generations.ReplaceAllString(line, "generation: a new one"), " ()"))
				break
			}
		}
	}
	for _, r := range s.asked {
		if r.done && !r.told {
			r.told = true
			s.tell("%s answers %s: %s", r.node.name, r.name, r.outcome)
		}
	}
	s.wholeness()
	if s.a.readable() && s.b.readable() {
		s.cover()
	}
}

// ends brings the pair to rest as people would, and asserts that nothing is
// lost: or, where only an operator can go on, that nothing was copied.
func (s *scenario) ends() {
	if s.apart[0] != nil {
		s.run()
		for i, n := range s.nodes {
			s.require(bytes.Equal(n.data.Snapshot(), s.apart[i]), "untouched at "+n.name)
		}
		return
	}
	s.noAnswer = false
	for range 20 {
		for _, n := range s.nodes {
			n.hung = [2]bool{}
			n.data.Heal()
			n.meta.Heal()
			if n.engine != nil && n.engine.local == diskFailed {
				s.kill(n, false)
			}
			if n.engine == nil {
				n.boot()
			}
		}
		s.run()
		if !s.mirrors() {
			s.connect()
		}
		s.settle()
		if !s.a.serves() && !s.b.serves() {
			_ = s.prim(s.a) || s.prim(s.b)
		}
		s.settle()
		s.wait(time.Second, s.settle)
		s.wholeness()
		if s.quiet() {
			break
		}
	}
	s.require(s.quiet(), "at rest in the end")
	s.compare()
	s.cover()
	s.empty(s.a)
	s.empty(s.b)
}

func (s *scenario) mirrors() bool {
	return s.a.engine.session.state == Mirroring && s.b.engine.session.state == Mirroring
}

// settle lets everything go on, the arbiter included, until nothing more moves.
func (s *scenario) settle() {
	for range 100 {
		s.arbitrated()
		s.arbitrate(s.a)
		s.arbitrate(s.b)
		s.run()
		if s.noAnswer || len(s.a.asks)+len(s.b.asks) == 0 && s.arbitrates() == nil {
			return
		}
	}
}

// arbitrates is a node that would be brought back to pair, or nil.
func (s *scenario) arbitrates() *simNode {
	for _, n := range s.nodes {
		if e := n.engine; n.gives || e != nil && e.Primary() && e.right == RightAlone && e.local == diskGood && s.record.alone &&
			s.record.holder == n.id && e.session.state == Mirroring && n.peer().engine != nil && n.peer().engine.session.state == Mirroring {
			return n
		}
	}
	return nil
}

func (s *scenario) node(name string) *simNode {
	for _, n := range s.nodes {
		if n.name == name {
			return n
		}
	}
	s.fail("no node %q", name)
	return nil
}

func (s *scenario) number(text string) int64 {
	n, err := strconv.ParseInt(text, 10, 64)
	s.must(err)
	return n
}

// sectors reads a range: 7, 7+2, s57+2.
func (s *scenario) sectors(text string) (first, count int64) {
	unit := int64(block.Size / sector)
	if rest, ok := strings.CutPrefix(text, "s"); ok {
		text, unit = rest, 1
	}
	from, n, many := strings.Cut(text, "+")
	count = 1
	if many {
		count = s.number(n)
	}
	return s.number(from) * unit, count * unit
}

// ask submits a client's request.
func (s *scenario) ask(words []string) {
	ops := map[string]block.Op{"write": block.Write, "fua": block.Write, "read": block.Read, "trim": block.Trim, "zero": block.WriteZeroes, "flush": block.Flush}
	n, op, flags, version := s.node(words[1]), ops[words[0]], block.Flags(0), uint64(0)
	first, count := int64(0), int64(0)
	if op != block.Flush {
		first, count = s.sectors(words[2])
	}
	if words[0] == "fua" {
		flags = block.FUA
	}
	if op.Changes() {
		if s.last++; op == block.Write {
			text, _ := strings.CutPrefix(words[len(words)-1], "v=")
			if version = uint64(s.number(text)); version < s.last {
				s.fail("versions must grow: %v", words)
			}
			s.last = version
		}
		if version = s.last; op != block.Write {
			s.model.zeroes[version] = true
		}
	}
	r := s.request(n, op, flags, first*sector, count*sector, version)
	r.name = strings.Join(slices.Delete(slices.Clone(words), 1, 2), " ")
	s.asked = append(s.asked, r)
	s.give(n, r)
}
