// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/nbd"
)

// Node is one of the two servers of a lab.
type Node struct {
	Process
	Name string

	lab     *Lab
	port    int
	exports map[string]int // TCP port by volume
}

func (l *Lab) newNode(name string, port int) *Node {
	return &Node{
		Process: Process{name: name, log: l.path(name + ".log"), argv: l.argv(name, "serve")},
		Name:    name, lab: l, port: port, exports: make(map[string]int),
	}
}

func (n *Node) dir(name string) string { return filepath.Join(n.lab.Dir, n.Name, name) }

// Disk is the path of the node's disk of a volume; Metadata is the file beside it.
func (n *Node) Disk(volume string) string { return n.dir(volume + ".img") }

// Metadata is the path of the metadata of a disk that is a file.
func (n *Node) Metadata(volume string) string { return n.Disk(volume) + ".meta" }

// Address is where the node listens for its peer.
func (n *Node) Address() string { return fmt.Sprintf("127.0.0.1:%d", n.port) }

// Upgrade gives the node another program than the lab's, from its next start on.
func (n *Node) Upgrade(program string) { n.argv[0] = program }

// StartAs is Start under another name than its own.
func (n *Node) StartAs(t testing.TB, name string) {
	t.Helper()
	n.argv = n.lab.argv(name, "serve")
	n.Start(t)
	n.argv = n.lab.argv(n.Name, "serve")
}

// Start starts the node and waits until it answers.
func (n *Node) Start(t testing.TB) {
	t.Helper()
	n.start(t)
	WaitFor(t, n.Name+" to answer", patience, func() error {
		_, err := n.Status()
		if err != nil && !n.Running() {
			t.Fatalf("%s has ended (%v):\n%s", n.Name, n.err, n.Tail(10))
		}
		return err
	})
}

// Run runs a command of the program as this node.
func (n *Node) Run(t testing.TB, args ...string) Output {
	t.Helper()
	return n.lab.Run(t, n.Name, args...)
}

// MustRun is Run of a command that must succeed.
func (n *Node) MustRun(t testing.TB, args ...string) Output {
	t.Helper()
	return n.lab.MustRun(t, n.Name, args...)
}

// Refused runs a command that must be refused: exit code 1 and on stderr one line
// that says what is wrong, with all of the texts in it, and at most one more with a
// hint. It returns what was said.
func (n *Node) Refused(t testing.TB, args []string, texts ...string) string {
	t.Helper()
	out := n.Run(t, args...)
	if out.Code != 1 {
		t.Fatalf("twinbd %v on %s was not refused: %s", args, n.Name, out)
	}
	CheckRefusal(t, out.Stderr, texts...)
	return out.Stderr
}

// CheckRefusal holds that what was said is one line, and perhaps a hint, with all
// of the texts.
func CheckRefusal(t testing.TB, said string, texts ...string) {
	t.Helper()
	lines := strings.Split(strings.TrimRight(said, "\n"), "\n")
	if !strings.HasPrefix(lines[0], "twinbd: ") || len(lines) > 2 || len(lines) == 2 && !strings.HasPrefix(lines[1], "hint: ") {
		t.Errorf("a refusal is one line, and perhaps a hint; this is\n%s", said)
	}
	for _, text := range texts {
		if !strings.Contains(said, text) {
			t.Errorf("the refusal does not say %q:\n%s", text, said)
		}
	}
}

// Status asks the node what it is.
func (n *Node) Status() (*control.Status, error) {
	client := control.NewClient(n.ControlSocket())
	defer client.Close()
	status, err := client.Status(context.Background())
	if err == nil && status.Service(Service) == nil {
		err = fmt.Errorf("%s does not know service %s", n.Name, Service)
	}
	return status, err
}

// Service is the node's status of the service.
func (n *Node) Service(t testing.TB) *control.ServiceStatus {
	t.Helper()
	status, err := n.Status()
	if err != nil {
		t.Fatalf("status of %s: %v", n.Name, err)
	}
	return status.Service(Service)
}

// Volume is the node's status of a volume.
func (n *Node) Volume(t testing.TB, name string) control.VolumeStatus {
	t.Helper()
	all := n.Service(t).Volumes
	i := slices.IndexFunc(all, func(v control.VolumeStatus) bool { return v.Name == name })
	if i < 0 {
		t.Fatalf("%s does not know volume %s", n.Name, name)
	}
	return all[i]
}

// WaitState waits until the node is in one of the states.
func (n *Node) WaitState(t testing.TB, states ...control.State) {
	t.Helper()
	WaitFor(t, fmt.Sprintf("%s to be %v", n.Name, states), patience, func() error { return n.inState(states...) })
}

// WaitServing waits until the node serves, with its peer or without.
func (n *Node) WaitServing(t testing.TB) {
	t.Helper()
	n.WaitState(t, control.Primary, control.Alone)
}

// WaitReason waits until the node's status says a text, as the reason of its state
// or as what is wrong with the peer.
func (n *Node) WaitReason(t testing.TB, text string) {
	t.Helper()
	WaitFor(t, fmt.Sprintf("%s to say %q", n.Name, text), patience, func() error {
		s := n.Service(t)
		if strings.Contains(s.Reason, text) || strings.Contains(s.Peer.Problem, text) {
			return nil
		}
		return fmt.Errorf("it says %q, and of the peer %q", s.Reason, s.Peer.Problem)
	})
}

func (n *Node) inState(states ...control.State) error {
	if !n.Running() {
		return fmt.Errorf("%s does not run: %w", n.Name, errors.Join(n.err, errors.New(n.Tail(3))))
	}
	status, err := n.Status()
	if err != nil {
		return err
	}
	s := status.Service(Service)
	if !slices.Contains(states, s.State) || s.State == control.Secondary && !s.UpToDate {
		return fmt.Errorf("%s is %s: %s", n.Name, s.State, s.Reason)
	}
	return nil
}

// URI is where NBD clients of the node's volume connect.
func (n *Node) URI(volume string) string {
	if n.lab.options.TCP {
		return fmt.Sprintf("nbd://127.0.0.1:%d/%s", n.exports[volume], volume)
	}
	return fmt.Sprintf("nbd+unix:///%s?socket=%s", volume, filepath.Join(n.dir("run"), volume+".sock"))
}

// Dial connects to a volume; the connection ends with the test.
func (n *Node) Dial(t testing.TB, volume string) *nbd.Client {
	t.Helper()
	c, err := nbd.Dial(context.Background(), n.URI(volume), nil)
	if err != nil {
		t.Fatalf("connect to %s on %s: %v", volume, n.Name, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// DialTLS is Dial with the keys of one of the names that `twinbd init` knows.
func (n *Node) DialTLS(keys, self, volume string) (*nbd.Client, error) {
	k, err := trust.Load(keys, self)
	if err != nil {
		return nil, err
	}
	uri := strings.Replace(n.URI(volume), "nbd", "nbds", 1)
	return nbd.Dial(context.Background(), uri, k.Client(n.Name))
}
