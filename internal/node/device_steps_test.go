// SPDX-License-Identifier: Apache-2.0

//go:build linux

package node

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/twinbd/twinbd/failover/application"
)

// An unmount that is refused is forced; one that hangs until its limit is not
// followed by what would hang too.
func TestUnmountIsForced(t *testing.T) {
	busy := errors.New("in use")
	over, end := context.WithCancel(t.Context())
	end()
	for _, test := range []struct {
		name string
		ctx  context.Context
		err  error
		want []string
	}{
		{"free", t.Context(), nil, []string{"down"}},
		{"busy", t.Context(), busy, []string{"down", "force"}},
		{"hangs", over, busy, []string{"down"}},
	} {
		var done []string
		step := letGo(application.Step{
			Down: func(context.Context, application.Order) error {
				done = append(done, "down")
				return test.err
			},
			Force: func(context.Context, application.Order) error {
				done = append(done, "force")
				return nil
			},
		}, t.TempDir())
		if err := step.Down(test.ctx, orderOfTest); !errors.Is(err, test.err) || !slices.Equal(done, test.want) {
			t.Errorf("%s: %v, %v", test.name, done, err)
		}
	}
}

// The way up is devices, checks and mounts, addresses, commands; forced down, the
// devices are disconnected before all.
func TestOrderOfSteps(t *testing.T) {
	l := newLabOf(t, "1MiB", "fast", `device = { alpha = "/dev/nbd0", beta = "/dev/nbd1" }
mount = { at = { alpha = "/mnt/alpha", beta = "/mnt/beta" }, type = "ext4" }`, nil)
	var names []string
	for _, s := range l.nodes["alpha"].node.services[0].app.order() {
		names = append(names, s.Name)
	}
	if want := []string{"attach data", "check data", "mount data", "disconnect data"}; !slices.Equal(names, want) {
		t.Errorf("%v", names)
	}
}
