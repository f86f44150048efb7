// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Usage is what a process holds.
type Usage struct {
	Memory      int64 // bytes, resident
	Descriptors int
	Threads     int
	LogBytes    int64
}

// Usage asks the kernel.
func (p *Process) Usage(t testing.TB) Usage {
	t.Helper()
	if !p.Running() {
		t.Fatalf("%s has ended (%v):\n%s", p.name, p.err, p.Tail(20))
	}
	dir := fmt.Sprintf("/proc/%d", p.cmd.Process.Pid)
	status, err := os.ReadFile(filepath.Join(dir, "status"))
	if err != nil {
		t.Fatalf("look at %s: %v", p.name, err)
	}
	open, err := os.ReadDir(filepath.Join(dir, "fd"))
	if err != nil {
		t.Fatalf("look at %s: %v", p.name, err)
	}
	u := Usage{Descriptors: len(open)}
	for line := range strings.Lines(string(status)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(words[1], 10, 64) // other lines say other things
		switch words[0] {
		case "VmRSS:":
			u.Memory = n << 10
		case "Threads:":
			u.Threads = int(n)
		}
	}
	if info, err := os.Stat(p.log); err == nil {
		u.LogBytes = info.Size()
	}
	return u
}

// Max is the larger of each.
func (u Usage) Max(v Usage) Usage {
	return Usage{max(u.Memory, v.Memory), max(u.Descriptors, v.Descriptors), max(u.Threads, v.Threads), max(u.LogBytes, v.LogBytes)}
}

// String is for a test's log.
func (u Usage) String() string {
	return fmt.Sprintf("%d MiB, %d descriptors, %d threads, %d bytes of log", u.Memory>>20, u.Descriptors, u.Threads, u.LogBytes)
}

// LimitDescriptors makes the process one that may open so many files, when it is
// started next.
func (p *Process) LimitDescriptors(most int) {
	p.Within("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, most), "sh")
}

// ControlSocket is the path of the node's control socket.
func (n *Node) ControlSocket() string { return filepath.Join(n.dir("run"), "twinbd.sock") }

// ExportAddress is the network and address of the node's export of a volume.
func (n *Node) ExportAddress(volume string) (network, address string) {
	if n.lab.options.TCP {
		return "tcp", fmt.Sprintf("127.0.0.1:%d", n.exports[volume])
	}
	return "unix", filepath.Join(n.dir("run"), volume+".sock")
}

// WitnessAddress is where the witness listens.
func (l *Lab) WitnessAddress() string { return fmt.Sprintf("127.0.0.1:%d", l.witnessPort) }
