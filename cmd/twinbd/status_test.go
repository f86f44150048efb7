// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twinbd/twinbd/control"
)

// A watch goes on while the node is away, and ends quietly when interrupted.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		begin, looks := time.Now(), 0
		look := func(context.Context) (*control.Status, error) {
			switch looks++; looks {
			case 2:
				return nil, &control.Refusal{Message: "no twinbd runs", Hint: "start it"}
			case 3:
				cancel()
			}
			return &control.Status{Node: "alpha", Cluster: "c"}, nil
		}
		var out bytes.Buffer
		if err := watch(ctx, statusOptions{every: time.Minute}, look, &out); err != nil {
			t.Error(err)
		}
		const want = "node alpha of cluster c\ntwinbd: no twinbd runs\nhint: start it\n"
		if out.String() != want {
			t.Errorf("got %q, want %q", out.String(), want)
		}
		if d := time.Since(begin); looks != 3 || d != 2*time.Minute {
			t.Errorf("%d looks in %v", looks, d)
		}
	})
}
