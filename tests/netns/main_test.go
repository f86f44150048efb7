// SPDX-License-Identifier: Apache-2.0

//go:build linux

package netns

import (
	"flag"
	"os"
	"os/exec"
	"testing"

	"github.com/twinbd/twinbd/tests/harness"
)

var run = flag.Bool("netns", false, "run: needs root and minutes (`make netns`)")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(harness.Main(m))
}

// need skips a test that was not asked for, or cannot be.
func need(t testing.TB) {
	t.Helper()
	if !*run {
		t.Skip("not asked for: `make netns` runs it")
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces need root")
	}
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("nft is not installed: `make setup` as root installs it")
	}
}
