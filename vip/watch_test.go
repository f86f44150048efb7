// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"context"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		away := Address{netip.MustParsePrefix("10.9.0.1/24"), "eth9"}
		m := f.manager(t, time.Second, virtual4, away)
		ctx, cancel := context.WithCancel(t.Context())
		var reports []Link
		ended := make(chan error)
		go func() { ended <- m.Watch(ctx, func(l Link) { reports = append(reports, l) }) }()
		expect := func(when string, want ...Link) {
			t.Helper()
			synctest.Wait()
			if !slices.Equal(reports, want) {
				t.Errorf("%s: reported %v, want %v", when, reports, want)
			}
			reports = nil
		}
		expect("at first", Link{virtual4, "eth0", true}, Link{away, "eth9", false})

		f.change("eth0", func(d *device) { d.up = false })
		expect("before there is news")
		f.stir <- struct{}{}
		expect("cable pulled", Link{virtual4, "eth0", false})
		f.stir <- struct{}{}
		expect("other news")

		f.change("eth0", func(d *device) { d.up = true })
		pass(lookEvery)
		expect("news was lost", Link{virtual4, "eth0", true})

		f.change("eth0", func(d *device) { d.prefixes = nil })
		f.stir <- struct{}{}
		expect("the subnet went", Link{virtual4, "", false})

		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
