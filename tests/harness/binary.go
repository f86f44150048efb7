// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// binaryVariable names a program to test instead of one built from the source.
const binaryVariable = "TWINBD_BINARY"

// buildDir is where the program is built; Main makes and removes it.
var buildDir string

// Main is the TestMain of packages that use this one: it removes the program
// that was built for them.
func Main(m *testing.M) int {
	dir, err := os.MkdirTemp("", "twinbd-build")
	if err != nil {
		fmt.Fprintln(os.Stderr, "make directory for the program:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	buildDir = dir
	if raceDetector && os.Getenv("GORACE") == "" {
		os.Setenv("GORACE", "atexit_sleep_ms=0") // else every command takes a second to end
	}
	return m.Run()
}

// built builds the program once for all tests of a process.
var built = sync.OnceValues(func() (string, error) {
	if path := os.Getenv(binaryVariable); path != "" {
		return filepath.Abs(path)
	}
	return build("twinbd")
})

func build(name string, options ...string) (string, error) {
	path := filepath.Join(buildDir, name)
	args := append([]string{"build", "-o", path}, options...)
	if raceDetector {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "github.com/twinbd/twinbd/cmd/twinbd")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build twinbd: %w\n%s", err, out)
	}
	return path, nil
}

// Binary is the program under test.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := built()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// NextBinary builds the program as the next release will be for its peer: with the
// next version of their protocol.
func NextBinary(t testing.TB) string {
	t.Helper()
	path, err := build("twinbd-next", "-tags", "nextprotocol")
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Need skips the test where one of the programs is missing.
func Need(t testing.TB, programs ...string) {
	t.Helper()
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("%s is not installed: `make setup` as root installs it", program)
		}
	}
}

// NeedRoot skips the test for ordinary users.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: it mounts")
	}
}
