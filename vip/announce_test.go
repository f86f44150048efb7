// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// rounds are the moments at which something was sent.
func rounds(frames []sent) (at []time.Duration) {
	for _, s := range frames {
		if !slices.Contains(at, s.at) {
			at = append(at, s.at)
		}
	}
	return at
}

// renewed lets time pass while a caller renews as it should.
func renewed(t *testing.T, m *Manager, d time.Duration) {
	t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); pass(100 * time.Millisecond) {
		if err := m.Renew(); err != nil {
			t.Fatal(err)
		}
	}
}

const ms = time.Millisecond

var burstAt = []time.Duration{0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms}

func TestBurstThenForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := f.manager(t, time.Second, virtual4, virtual6)
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		renewed(t, m, 25*time.Second)
		frames := f.take()
		if got, want := rounds(frames), append(slices.Clone(burstAt), 13200*ms, 23200*ms); !slices.Equal(got, want) {
			t.Errorf("announced at %v, want %v", got, want)
		}
		if want := 3 * len(rounds(frames)); len(frames) != want { // two of ARP, one of neighbour discovery
			t.Errorf("%d frames, want %d", len(frames), want)
		}
		for _, s := range frames {
			_, one := claim(s.frame, virtual4.IP())
			_, two := claim(s.frame, virtual6.IP())
			if s.iface != "eth0" || one == two {
				t.Errorf("at %v on %s: %x", s.at, s.iface, s.frame)
			}
		}
		if _, err := m.Leave(); err != nil {
			t.Fatal(err)
		}
		pass(time.Minute)
		if got := f.take(); len(got) != 0 {
			t.Errorf("%d frames after Leave", len(got))
		}
	})
}

func TestAnnounceAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := f.manager(t, time.Second, virtual4)
		m.Announce("nothing is held")
		synctest.Wait()
		if got := f.take(); len(got) != 0 {
			t.Fatalf("%d frames of nothing", len(got))
		}
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		renewed(t, m, 5*time.Second)
		f.take()
		m.Announce("contact was lost")
		m.Announce("and again, in the same moment")
		renewed(t, m, 5*time.Second)
		var want []time.Duration
		for _, at := range burstAt {
			want = append(want, 5*time.Second+at)
		}
		if got := rounds(f.take()); !slices.Equal(got, want) {
			t.Errorf("announced at %v, want %v", got, want)
		}
	})
}

// The hardware is the interface's at that moment, which a bond may change.
func TestAnnouncesTheHardwareOfNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := f.manager(t, time.Second, virtual4)
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f.take()
		f.change("eth0", func(d *device) { d.hardware = net.HardwareAddr{2, 0, 0, 0, 0, 1} })
		pass(100 * ms)
		synctest.Wait()
		frames := f.take()
		if len(frames) != 2 {
			t.Fatalf("%d frames", len(frames))
		}
		if got, _ := claim(frames[0].frame, virtual4.IP()); got.String() != "02:00:00:00:00:01" {
			t.Errorf("announced %v", got)
		}
	})
}

// Whoever wakes up late must not draw traffic to himself.
func TestSilentWhenLost(t *testing.T) {
	tests := []struct {
		name string
		lose func(*fakeNetwork)
	}{
		{"the address is gone", func(f *fakeNetwork) {
			f.change("eth0", func(d *device) { d.prefixes = d.prefixes[:1] })
		}},
		{"the machine was suspended", func(f *fakeNetwork) {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.skipped = time.Hour
		}},
		{"the process was frozen", func(*fakeNetwork) { pass(1100 * ms) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				m := f.manager(t, time.Second, virtual4)
				if err := m.Take(); err != nil {
					t.Fatal(err)
				}
				synctest.Wait()
				test.lose(f)
				f.take()
				m.Announce("woken up")
				pass(time.Minute)
				if got := f.take(); len(got) != 0 {
					t.Errorf("%d frames, the first at %v", len(got), got[0].at)
				}
			})
		})
	}
}

func TestNobodyToTell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := f.manager(t, time.Second, Address{virtual4.Prefix, "lo"})
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		if got := f.take(); len(got) != 0 {
			t.Errorf("%d frames on loopback", len(got))
		}
	})
}

// A link that fails is logged once, and so is its return.
func TestAnnouncementErrorsAreToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fail["send eth0"] = errors.New("network is down")
		var log bytes.Buffer
		m := f.manager(t, time.Minute, virtual4)
		m.log = slog.New(slog.NewTextHandler(&log, nil))
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		pass(20 * time.Second)
		f.mu.Lock()
		delete(f.fail, "send eth0")
		f.mu.Unlock()
		pass(20 * time.Second)
		m.Close()
		for _, message := range []string{"virtual address not announced", "virtual address announced again"} {
			if n := strings.Count(log.String(), message); n != 1 {
				t.Errorf("%q %d times:\n%s", message, n, log.String())
			}
		}
	})
}
