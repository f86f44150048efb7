// SPDX-License-Identifier: Apache-2.0

//go:build linux

package e2e

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/tests/harness"
)

// With keys an export takes encrypted connections too: from those who have one of
// the cluster's keys, and from nobody else.
func TestEncryptedExport(t *testing.T) {
	for name, options := range map[string]harness.Options{"tcp": {TCP: true}, "unix": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			lab := harness.NewPair(t, options)
			c, err := lab.Alpha.DialTLS(lab.Keys(), "admin", data)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			put(t, c, 4096, pattern(3, 1<<20))
			holds(t, lab.Alpha.Dial(t, data), 4096, pattern(3, 1<<20))

			strangers := filepath.Join(t.TempDir(), "tls")
			if err := trust.Init(strangers, []string{"alpha", "beta", "witness", "admin"}); err != nil {
				t.Fatal(err)
			}
			c, err = lab.Alpha.DialTLS(strangers, "admin", data)
			if err == nil {
				c.Close()
				t.Fatal("a client with keys of another cluster was let in")
			}
			if _, ok := errors.AsType[*trust.WrongKey](err); !ok {
				t.Errorf("a client with wrong keys is told %v", err)
			}

			// The client believes this server's key, but has none of its own here.
			copyFile(t, filepath.Join(lab.Keys(), "alpha.crt"), filepath.Join(strangers, "alpha.crt"))
			if c, err = lab.Alpha.DialTLS(strangers, "admin", data); err == nil {
				c.Close()
				t.Error("a client with a key of another cluster was let in")
			}
		})
	}
}

// Where others could listen, nothing goes in clear; without keys nothing goes at all.
func TestExportBeyondLoopback(t *testing.T) {
	harness.Need(t, "nbdinfo")
	lab := harness.NewLab(t, harness.Options{TCP: true})
	lab.WriteConfig(t, strings.ReplaceAll(lab.Config(), "tcp:127.0.0.1:", "tcp:0.0.0.0:"))
	for _, n := range lab.Nodes() {
		n.MustRun(t, "create", "--blank")
	}
	lab.Start(t)
	lab.Alpha.MustRun(t, "prim", harness.Service)
	lab.WaitPaired(t, lab.Alpha)
	out := harness.Run(t, "nbdinfo", lab.Alpha.URI(data))
	if out.Code == 0 {
		t.Errorf("an export beyond loopback took a client in clear: %s", out)
	}
	c, err := lab.Alpha.DialTLS(lab.Keys(), "admin", data)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	put(t, c, 0, pattern(4, 8192))

	bare := harness.NewLab(t, harness.Options{TCP: true, Insecure: true})
	bare.WriteConfig(t, strings.ReplaceAll(bare.Config(), "tcp:127.0.0.1:", "tcp:0.0.0.0:"))
	out = bare.Run(t, "alpha", "serve")
	if out.Code != 1 || !strings.Contains(out.Stderr, "can be reached from other machines, which needs [tls]") {
		t.Errorf("an export beyond loopback without keys: %s", out)
	}
}

// A node with keys of another cluster is not a dead peer: both nodes say whose key
// is wrong, and what to do.
func TestWrongKeys(t *testing.T) {
	for _, wrong := range []string{"alpha", "beta"} {
		t.Run(wrong, func(t *testing.T) {
			t.Parallel()
			lab := harness.NewPair(t, harness.Options{})
			put(t, lab.Alpha.Dial(t, data), 0, pattern(5, 4096))
			lab.Beta.Stop(t)
			lab.Alpha.Stop(t)

			// That node gets a pair of keys that its peer does not know.
			other := filepath.Join(t.TempDir(), "tls")
			if err := trust.Init(other, []string{wrong}); err != nil {
				t.Fatal(err)
			}
			mine := filepath.Join(lab.Dir, "wrong")
			if err := os.Mkdir(mine, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, file := range []string{"alpha.crt", "beta.crt", "witness.crt", "admin.crt"} {
				copyFile(t, filepath.Join(lab.Keys(), file), filepath.Join(mine, file))
			}
			for _, file := range []string{wrong + ".key", wrong + ".crt"} {
				copyFile(t, filepath.Join(other, file), filepath.Join(mine, file))
			}
			right := lab.Config()
			first, second := lab.Alpha, lab.Beta
			if wrong == "alpha" {
				first, second = second, first
			}
			first.Start(t)
			lab.WriteConfig(t, strings.Replace(right, lab.Keys(), mine, 1))
			second.Start(t)
			lab.WriteConfig(t, right)

			const hint = "copy the tls directory made by one `twinbd init` to both nodes"
			for _, n := range lab.Nodes() {
				n.WaitReason(t, hint)
				if out := n.MustRun(t, "status"); !strings.Contains(out.Stdout, hint) {
					t.Errorf("the status of %s does not say %q:\n%s", n.Name, hint, out)
				}
			}
			for _, n := range lab.Nodes() {
				if !strings.Contains(n.Log(), "key") {
					t.Errorf("the log of %s does not speak of a key", n.Name)
				}
			}
		})
	}
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
