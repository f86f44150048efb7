// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/block"
)

func TestPlan(t *testing.T) {
	const MiB = 1 << 20
	image := func(size int64) string {
		path := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, test := range []struct {
		name        string
		image       string
		size, want  int64 // of the volume
		least, hint string
	}{
		{name: "nothing said", want: DefaultSize},
		{name: "smallest", size: 32 * MiB, want: 32 * MiB},
		{name: "small image", image: image(1), want: DefaultSize},
		{name: "large odd image", image: image(600*MiB + 1), want: 609 * MiB},
		{name: "image that just fits", image: image(31 * MiB), size: 32 * MiB, want: 32 * MiB},
		{name: "image that just does not", image: image(31*MiB + 1), size: 32 * MiB, hint: "say --size 40MiB, or nothing"},
		{name: "too small", size: 31 * MiB, hint: "at least 32MiB"},
		{name: "no multiple", size: 64*MiB + 512, hint: "say for example 512MiB"},
		{name: "no file", image: "none", hint: "--image takes a file or a block device with data"},
	} {
		t.Run(test.name, func(t *testing.T) {
			l, err := plan(test.image, test.size)
			if test.hint != "" {
				if err == nil || control.Refuse(err).Hint != test.hint {
					t.Fatalf("plan says %v, want hint %q", err, test.hint)
				}
				return
			}
			if err != nil || l.size != test.want {
				t.Fatalf("plan chooses %d bytes (%v), want %d", l.size, err, test.want)
			}
			if l.image+l.ledger != l.size || l.ledger%block.Size != 0 || l.image%block.Size != 0 || l.ledger < writers*2*block.Size {
				t.Fatalf("plan divides as %+v", l)
			}
		})
	}
}
