// SPDX-License-Identifier: Apache-2.0

package vip

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestNewRefuses(t *testing.T) {
	address := func(text string) Address { return Address{Prefix: netip.MustParsePrefix(text)} }
	tests := []struct {
		name      string
		lifetime  time.Duration
		addresses []Address
		want      string
	}{
		{"no lifetime", 0, []Address{virtual4}, "lifetime 0s of virtual addresses: out of range"},
		{"a lifetime for ever", MaxLifetime + 1, []Address{virtual4}, "out of range"},
		{"nothing", time.Second, []Address{{}}, "invalid Prefix cannot be a virtual address"},
		{"any", time.Second, []Address{address("0.0.0.0/0")}, "cannot be a virtual address"},
		{"a group", time.Second, []Address{address("ff02::1/64")}, "cannot be a virtual address"},
		{"IPv4 in IPv6", time.Second, []Address{address("::ffff:10.0.0.1/120")}, "cannot be a virtual address"},
		{"twice", time.Second, []Address{virtual4, address("10.0.0.100/16")}, "10.0.0.100: given twice"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := newManager(Config{Addresses: test.addresses, Lifetime: test.lifetime}, nil)
			var hint interface{ Hint() string }
			if err == nil || !strings.Contains(err.Error(), test.want) || !errors.As(err, &hint) {
				t.Errorf("error %v, want %q with a hint", err, test.want)
			}
		})
	}
}

func TestTakeAndLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := f.manager(t, 3*time.Second, virtual4, virtual6)
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		want := []string{"assign eth0 10.0.0.100/32", "assign eth0 fd00::100/128"}
		if got := f.steps(); !slices.Equal(got, want) {
			t.Errorf("taken by %q, want %q", got, want)
		}
		if got := f.lifetime[virtual4.IP()]; got != 3*time.Second {
			t.Errorf("lifetime %v", got)
		}
		if got := m.Held(); !slices.Equal(got, []Address{virtual4, virtual6}) {
			t.Errorf("held %v", got)
		}

		left, err := m.Leave()
		if err != nil || left.Unreset != nil || left.Connections != 2 || len(left.Removed) != 2 {
			t.Errorf("left %+v, %v", left, err)
		}
		reset := "reset [10.0.0.100 fd00::100]"
		want = []string{reset, "remove eth0 10.0.0.100/32", "remove eth0 fd00::100/128", reset}
		if got := f.steps(); !slices.Equal(got, want) {
			t.Errorf("left by %q, want %q", got, want)
		}
		if m.Held() != nil {
			t.Errorf("still held: %v", m.Held())
		}
		if err := m.Renew(); err != nil || len(f.steps()) != 0 {
			t.Errorf("renewed without anything held: %v", err)
		}
	})
}

// What an earlier run left behind is renewed by Take and removed by Leave,
// with whatever prefix it has, and only Leave looks at other interfaces.
func TestLeftovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.change("eth0", func(d *device) { d.prefixes = append(d.prefixes, virtual4.Prefix) })
		m := f.manager(t, time.Second, virtual4)
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		if got := f.steps(); !slices.Equal(got, []string{"assign eth0 10.0.0.100/24"}) {
			t.Errorf("taken by %q", got)
		}
		f.change("eth1", func(d *device) { d.prefixes = append(d.prefixes, virtual4.Prefix) })
		err := m.Take()
		if want := "take virtual address 10.0.0.100: it is on this node's eth1, and belongs on eth0; hint: ip addr del 10.0.0.100/24 dev eth1"; err == nil || err.Error() != want {
			t.Errorf("error %v, want %q", err, want)
		}
		if left, err := m.Leave(); err != nil || len(left.Removed) != 2 {
			t.Errorf("left %+v, %v", left, err)
		}
	})
}

func TestOneFailureDoesNotStopTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		boom := errors.New("boom")
		f.fail["assign eth0 10.0.0.100/32"] = boom
		m := f.manager(t, time.Second, virtual4, virtual6)
		err := m.Take()
		if !errors.Is(err, boom) || !strings.Contains(err.Error(), "take virtual address 10.0.0.100: add it to eth0: boom") {
			t.Errorf("error %v", err)
		}
		if got := m.Held(); !slices.Equal(got, []Address{virtual6}) {
			t.Errorf("held %v", got)
		}
		synctest.Wait()
		if got := f.take(); len(got) != 1 {
			t.Errorf("%d frames, want the one for IPv6", len(got))
		}
		delete(f.fail, "assign eth0 10.0.0.100/32")
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		f.fail["remove eth0 10.0.0.100/32"] = boom
		f.fail["reset [10.0.0.100 fd00::100]"] = errors.ErrUnsupported
		left, err := m.Leave()
		if !errors.Is(err, boom) || !slices.Equal(left.Removed, []netip.Addr{virtual6.IP()}) || !errors.Is(left.Unreset, errors.ErrUnsupported) {
			t.Errorf("left %+v, %v", left, err)
		}
		delete(f.fail, "remove eth0 10.0.0.100/32")
		if left, err = m.Leave(); err != nil || !slices.Equal(left.Removed, []netip.Addr{virtual4.IP()}) {
			t.Errorf("left again %+v, %v", left, err)
		}
	})
}

func TestRenewBringsNothingBack(t *testing.T) {
	renewal := func(t *testing.T, prepare func(*fakeNetwork)) (*fakeNetwork, *Manager, error) {
		f := newFake()
		m := f.manager(t, time.Second, virtual4, virtual6)
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		pass(700 * time.Millisecond)
		f.steps()
		prepare(f)
		return f, m, m.Renew()
	}
	tests := []struct {
		name    string
		prepare func(*fakeNetwork)
		want    []string // done
		err     string
	}{
		{"in time", func(f *fakeNetwork) {}, []string{"assign eth0 10.0.0.100/32", "assign eth0 fd00::100/128"}, ""},
		{"one was removed", func(f *fakeNetwork) { f.drop("eth0", netip.MustParsePrefix("10.0.0.100/32")) },
			[]string{"assign eth0 fd00::100/128"}, "renew virtual address 10.0.0.100: not on eth0"},
		{"the interface is gone", func(f *fakeNetwork) { f.list = f.list[:1] }, nil, "not on eth0"},
		{"the process was frozen", func(f *fakeNetwork) { pass(400 * time.Millisecond) }, nil, "100ms too late"},
		{"the machine was suspended", func(f *fakeNetwork) { f.skipped = time.Hour }, nil, "59m59.7s too late"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f, m, err := renewal(t, test.prepare)
				if got := f.steps(); !slices.Equal(got, test.want) {
					t.Errorf("done %q, want %q", got, test.want)
				}
				if test.err == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), test.err) {
					t.Errorf("error %v, want ErrLost with %q", err, test.err)
				}
				if again := m.Renew(); !errors.Is(again, ErrLost) {
					t.Errorf("the next time: %v, want ErrLost until Take or Leave", again)
				}
			})
		})
	}
}

func TestManagerOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.fail["devices"] = errors.New("asked")
		m := f.manager(t, time.Second)
		left, err := m.Leave()
		if err := errors.Join(m.Take(), m.Renew(), err, left.Unreset); err != nil {
			t.Error(err)
		}
	})
}

func TestCloseLeavesTheAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := f.manager(t, time.Second, virtual4)
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		m.Close()
		f.take()
		pass(time.Minute)
		if got := f.take(); len(got) != 0 {
			t.Errorf("%d frames after Close", len(got))
		}
		if got := f.steps(); !slices.Equal(got, []string{"assign eth0 10.0.0.100/32"}) {
			t.Errorf("done %q", got)
		}
		if err := m.Take(); err == nil {
			t.Error("taken after Close")
		}
	})
}

// Lent addresses stay, with nobody to speak for them, until they are left.
func TestLend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		m := f.manager(t, 3*time.Second, virtual4)
		if err := m.Take(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		f.steps()
		said := len(f.sent)
		if err := m.Lend(); err != nil {
			t.Fatal(err)
		}
		if got, want := f.steps(), []string{"reset [10.0.0.100]"}; !slices.Equal(got, want) {
			t.Errorf("lent by %q, want %q", got, want)
		}
		<-time.After(time.Second)
		if err := m.Renew(); err != nil || len(f.steps()) != 0 || len(f.sent) != said {
			t.Errorf("%d announcements while lent, renewed: %v", len(f.sent)-said, err)
		}
		if left, err := m.Leave(); err != nil || len(left.Removed) != 1 {
			t.Errorf("left %+v, %v", left, err)
		}
	})
}
