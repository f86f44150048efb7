// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"os"
	"path/filepath"
	"testing"
)

// FuzzKeys loads keys and certificates of any content: they are the keys of the
// names that they are filed under, or an error says what is wrong.
func FuzzKeys(f *testing.F) {
	dir := filepath.Join(f.TempDir(), "tls")
	if err := Init(dir, []string{"alpha", "beta"}); err != nil {
		f.Fatal(err)
	}
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	key, own, other := read("alpha.key"), read("alpha.crt"), read("beta.crt")
	f.Add(key, own, other)
	f.Add(key, other, own)
	f.Add(own, key, other)
	f.Add(key, append(own, other...), []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"))
	f.Add([]byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key, own, other []byte) {
		dir := t.TempDir()
		for name, content := range map[string][]byte{"alpha.key": key, "alpha.crt": own, "beta.crt": other} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		k, err := Load(dir, "alpha")
		if err != nil {
			return
		}
		if err := k.Check("alpha", "beta"); err != nil {
			t.Errorf("loaded, and yet %v", err)
		}
		if k.Client("beta") == nil || k.Server("beta") == nil || k.Self() != "alpha" {
			t.Error("loaded, and of no use")
		}
	})
}
