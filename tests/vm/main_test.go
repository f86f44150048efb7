// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"flag"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/twinbd/twinbd/tests/harness"
)

var (
	run  = flag.Bool("vm", false, "run: needs root, QEMU and minutes (`make test-vm`)")
	keep = flag.String("vm.keep", "", "directory for the logs and consoles of a test that fails")
	seed = flag.Uint64("vm.seed", 0, "of what is chosen at random; 0: a fresh one for each test")
)

// patience is for what takes a quiet machine some seconds under emulation.
const patience = 2 * time.Minute

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(harness.Main(m))
}

// need skips a test that was not asked for, or cannot be.
func need(t testing.TB) {
	t.Helper()
	if !*run {
		t.Skip("not asked for: `make test-vm` runs it")
	}
	if runtime.GOARCH != "amd64" {
		t.Skip("the machines are x86 ones")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root: it builds a root file system")
	}
	harness.Need(t, "qemu-system-x86_64", "mmdebstrap", "mke2fs", "mkfs.ext4")
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Skip("needs Debian's packages")
	}
}
