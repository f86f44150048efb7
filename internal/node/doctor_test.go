// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/vip"
)

const patientConfig = `
cluster = "c"
tls.dir = "/keys"
console.listen = "0.0.0.0:7880"
[node.alpha]
address = ["10.0.0.1:7800", "192.168.9.1:7800"]
state = "/state"
[node.beta]
address = ["10.0.0.2:7800", "192.168.9.2:7800"]
[witness]
address = ["10.0.0.3:7801"]
[service.pg]
ip = ["10.0.0.100/24"]
start = ["pg_ctl start", "unit:postgresql"]
stop = ["PGDATA=/x pg_ctl stop"]
check = { command = "test -f /ok && pg_isready", every = "5s", timeout = "3s", failures = 3, restarts = 2 }
[service.pg.volume.data]
size = "1MiB"
disk = "/data/{node}.img"
device = "/dev/nbd0"
`

// info is a file of a given kind.
type info struct {
	fs.FileInfo
	mode fs.FileMode
	size int64
}

func (i info) Mode() fs.FileMode { return i.mode }
func (i info) Size() int64       { return i.size }

// patient is a healthy node: nothing is to be said of it but that all is well.
func patient(t *testing.T, text string) *doctor {
	t.Helper()
	cfg, err := config.Parse("twinbd.toml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	d := &doctor{cfg: cfg, self: cfg.Node("alpha"), peer: cfg.Peer("alpha")}
	keys := t.TempDir()
	if err := trust.Init(keys, []string{"alpha", "beta", config.WitnessName}); err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix
	hardware := net.HardwareAddr{2, 0, 0, 0, 0, 2}
	d.machine = machine{
		now:      time.Now,
		loadKeys: func() (*trust.Keys, error) { return trust.Load(keys, "alpha") },
		readFile: func(path string) ([]byte, error) {
			return os.ReadFile(strings.Replace(path, "/keys", keys, 1))
		},
		stat: func(path string) (fs.FileInfo, error) {
			if strings.HasSuffix(path, ".sock") {
				return info{mode: fs.ModeSocket | 0o660}, nil
			}
			return info{mode: 0o600, size: 1 << 20}, nil
		},
		lookPath: func(p string) (string, error) { return "/bin/" + p, nil },
		interfaces: func() ([]netInterface, error) {
			return []netInterface{
				{"eth0", true, []netip.Prefix{prefix("10.0.0.1/24")}}, {"eth1", true, []netip.Prefix{prefix("192.168.9.1/30")}},
			}, nil
		},
		askPeer:      func(context.Context, netip.AddrPort) (config.Values, error) { return cfg.Values(), nil },
		reachWitness: func(context.Context, string) error { return nil },
		ping:         func(context.Context, netip.Addr) error { return nil },
		links: func(s *config.Service) ([]vip.Link, error) {
			return []vip.Link{{Address: vip.Address{Prefix: s.IP[0].Prefix}, Interface: "eth0", Up: true}}, nil
		},
		probe: func(_ context.Context, s *config.Service) ([]vip.Answer, error) {
			return []vip.Answer{{Address: vip.Address{Prefix: s.IP[0].Prefix}, Hardware: []net.HardwareAddr{hardware}}}, nil
		},
		inspect: func(*config.Volume) (*bitmap.Metadata, error) {
			return &bitmap.Metadata{Header: bitmap.Header{Cluster: "c", Volume: "data", Node: "alpha", Peer: "beta", State: bitmap.Consistent}}, nil
		},
		fileSystem:   func(string) (fileSystem, error) { return fileSystem{"ext4", 1 << 30, 1}, nil },
		cache:        func(string) (string, error) { return "write back", nil },
		capabilities: func() (uint64, error) { return 1<<41 - 1, nil },
		module:       func(string) (moduleState, error) { return moduleHere, nil },
		driver:       func() (deviceKernel, error) { return driverBy{netlink: true}, nil },
		status: func(context.Context) (*control.Status, error) {
			return &control.Status{Node: "alpha", Version: "v1", Services: []control.ServiceStatus{
				{Name: "pg", State: control.Secondary, Peer: control.PeerStatus{State: control.Primary}}}}, nil
		},
	}
	return d
}

// driverBy is a driver of which only the way to it is known.
type driverBy struct {
	deviceKernel
	netlink bool
}

func (d driverBy) Replaces() bool { return d.netlink }

// notWell are the findings that are not ok, a line each.
func notWell(found []Finding) (list []string) {
	for _, f := range found {
		if f.Level != LevelOK {
			list = append(list, fmt.Sprintf("%s %s: %s; hint: %s", f.Level, f.Check, f.Message, f.Hint))
		}
	}
	return list
}

func TestDoctorOfAHealthyNode(t *testing.T) {
	found := patient(t, patientConfig).visit(t.Context())
	if list := notWell(found); len(list) != 0 {
		t.Errorf("found\n%s", strings.Join(list, "\n"))
	}
	for _, c := range checks {
		if !slices.ContainsFunc(found, func(f Finding) bool { return f.Check == c.name }) {
			t.Errorf("nothing is said of %s", c.name)
		}
	}
}

// Each illness is found, alone, with its level, its check and a remedy.
func TestDoctorFinds(t *testing.T) {
	no := errors.New("connection refused")
	for _, tt := range []struct {
		name string
		ill  func(d *doctor)
		want []string // beginnings of the findings, in order
	}{
		{"no keys", func(d *doctor) {
			d.machine.loadKeys = func() (*trust.Keys, error) {
				return nil, errors.New("open /keys/alpha.key: no such file; hint: twinbd init")
			}
		}, []string{"fail keys: open /keys/alpha.key: no such file; hint: twinbd init"}},
		{"keys of others", func(d *doctor) {
			d.machine.loadKeys = func() (*trust.Keys, error) { return nil, fmt.Errorf("open: %w", fs.ErrPermission) }
		}, []string{"skip keys: the key of alpha was not looked at: open: permission denied; hint: run the doctor as root"}},
		{"old certificate", func(d *doctor) {
			d.machine.now = func() time.Time { return time.Date(12000, 1, 1, 0, 0, 0, 0, time.UTC) }
		},
			[]string{"warn keys: browsers do not trust the console any more"}},
		{"open socket", func(d *doctor) {
			stat := d.machine.stat
			d.machine.stat = func(p string) (fs.FileInfo, error) {
				if strings.HasSuffix(p, ".sock") {
					return info{mode: fs.ModeSocket | 0o666}, nil
				}
				return stat(p)
			}
		}, []string{"fail daemon: /run/twinbd/twinbd.sock is open to everybody (mode 0666)"}},
		{"address not here", func(d *doctor) { d.machine.interfaces = func() ([]netInterface, error) { return nil, nil } },
			[]string{"fail address: 10.0.0.1 is no address of this machine; hint: give it to an interface", "fail address: 192.168.9.1 is no"}},
		{"cable out", func(d *doctor) {
			list, _ := d.machine.interfaces()
			list[1].carries = false
			d.machine.interfaces = func() ([]netInterface, error) { return list, nil }
		}, []string{"fail address: 192.168.9.1 is on eth1, which is down or has no carrier"}},
		{"one path to the peer", func(d *doctor) {
			ask := d.machine.askPeer
			d.machine.askPeer = func(ctx context.Context, at netip.AddrPort) (config.Values, error) {
				if at.Addr().Is4() && at.Addr().As4()[0] == 10 {
					return nil, no
				}
				return ask(ctx, at)
			}
		}, []string{"warn peer: beta does not answer at 10.0.0.2:7800: connection refused; hint: start `twinbd serve` on beta"}},
		{"no peer", func(d *doctor) {
			d.machine.askPeer = func(context.Context, netip.AddrPort) (config.Values, error) { return nil, no }
		}, []string{"fail peer: beta does not answer at 10.0.0.2:7800", "fail peer: beta does not answer at 192.168.9.2:7800"}},
		{"another configuration", func(d *doctor) {
			other, err := config.Parse("x", []byte(strings.Replace(patientConfig, `size = "1MiB"`, `size = "2MiB"`, 1)))
			if err != nil {
				panic(err)
			}
			d.machine.askPeer = func(context.Context, netip.AddrPort) (config.Values, error) { return other.Values(), nil }
		}, []string{"warn peer: the configuration of beta differs in service.pg.volume.data.size"}},
		{"no witness", func(d *doctor) { d.machine.reachWitness = func(context.Context, string) error { return no } },
			[]string{"fail arbiter: the witness does not answer at 10.0.0.3:7801: connection refused; hint: start `twinbd witness` there"}},
		{"no interface for the address", func(d *doctor) {
			d.machine.links = func(s *config.Service) ([]vip.Link, error) {
				return []vip.Link{{Address: vip.Address{Prefix: s.IP[0].Prefix}}}, nil
			}
		}, []string{"fail virtual ip: no interface has the subnet of 10.0.0.100/24"}},
		{"a stranger has the address", func(d *doctor) {
			d.machine.status = func(context.Context) (*control.Status, error) {
				return &control.Status{Services: []control.ServiceStatus{{Name: "pg", State: control.Wait}}}, nil
			}
		}, []string{"fail virtual ip: 10.0.0.100 is in use by another machine: [02:00:00:00:00:02] answers for it"}},
		{"no daemon", func(d *doctor) {
			d.machine.status = func(context.Context) (*control.Status, error) {
				return nil, &control.Refusal{Message: "no twinbd runs", Hint: "start it"}
			}
		}, []string{"warn daemon: no twinbd runs; hint: start it", "warn virtual ip: 10.0.0.100 is in use"}},
		{"may not probe", func(d *doctor) {
			d.machine.probe = func(context.Context, *config.Service) ([]vip.Answer, error) { return nil, fs.ErrPermission }
		}, []string{"skip virtual ip: whether another machine has an address of pg was not looked at: permission denied; hint: run the doctor as root"}},
		{"no rights", func(d *doctor) { d.machine.capabilities = func() (uint64, error) { return 1 << 13, nil } },
			[]string{"fail rights: a node started by this user lacks CAP_NET_ADMIN", "fail rights: a node started by this user lacks CAP_SYS_ADMIN",
				"warn rights: a node started by this user lacks CAP_IPC_LOCK, for keeping a process that is the machine's disk in memory; hint: run twinbd as root, or give it CAP_IPC_LOCK",
				"warn rights: a node started by this user lacks CAP_SYS_RESOURCE", "fail rights: a node started by this user lacks CAP_KILL"}},
		{"no program", func(d *doctor) {
			d.machine.lookPath = func(p string) (string, error) { return "", fmt.Errorf("%s is not there", p) }
		}, []string{"fail commands: service.pg.start: there is no program pg_ctl to run", "fail commands: service.pg.stop: there is no program pg_ctl", "fail commands: service.pg.check: there is no program test"}},
		{"no systemd", func(d *doctor) {
			stat := d.machine.stat
			d.machine.stat = func(p string) (fs.FileInfo, error) {
				if strings.HasPrefix(p, "/run/systemd") {
					return nil, fs.ErrNotExist
				}
				return stat(p)
			}
		}, []string{"fail commands: service.pg.start: there is no systemd here to start postgresql"}},
		{"in memory", func(d *doctor) {
			d.machine.fileSystem = func(string) (fileSystem, error) { return fileSystem{"tmpfs", 1 << 30, 1}, nil }
		}, []string{"fail directory: /state is on tmpfs", "fail disk: data: /data/alpha.img is on tmpfs"}},
		{"far away", func(d *doctor) {
			d.machine.fileSystem = func(string) (fileSystem, error) { return fileSystem{"nfs", 1 << 30, 1}, nil }
		}, []string{"warn disk: data: /data/alpha.img is on nfs"}},
		{"full", func(d *doctor) {
			d.machine.fileSystem = func(string) (fileSystem, error) { return fileSystem{"ext4", 1 << 10, 1}, nil }
		}, []string{"fail directory: /state has 1024 bytes free"}},
		{"no disk, no room", func(d *doctor) {
			stat := d.machine.stat
			d.machine.stat = func(p string) (fs.FileInfo, error) {
				if strings.HasPrefix(p, "/data") {
					return nil, fs.ErrNotExist
				}
				return stat(p)
			}
			d.machine.fileSystem = func(p string) (fileSystem, error) {
				return fileSystem{"ext4", map[string]int64{"/": 1 << 10, "/state": 1 << 30}[p], 1}, nil
			}
		}, []string{"fail disk: data: /data/alpha.img needs 1048576 bytes, and 1024 are free", "fail disk: data: there is no /data/alpha.img yet; hint: `twinbd create data`"}},
		{"a file cut short", func(d *doctor) {
			stat := d.machine.stat
			d.machine.stat = func(p string) (fs.FileInfo, error) {
				if strings.HasPrefix(p, "/data") {
					return info{mode: 0o600, size: 5}, nil
				}
				return stat(p)
			}
		}, []string{"fail disk: data: /data/alpha.img has 5 bytes, and the volume 1048576"}},
		{"a failed disk", withHeader(func(h *bitmap.Header) { h.State, h.Reason = bitmap.Failed, "read: EIO" }),
			[]string{"fail disk: data: the disk has failed: read: EIO; hint: replace it"}},
		{"a half copy", withHeader(func(h *bitmap.Header) { h.State = bitmap.Inconsistent }),
			[]string{"warn disk: data: a copying onto this disk has not ended"}},
		{"a foreign disk", withHeader(func(h *bitmap.Header) { h.Node = "beta" }),
			[]string{"fail disk: data: the disk belongs to volume data of node beta"}},
		{"no metadata", func(d *doctor) {
			d.machine.inspect = func(*config.Volume) (*bitmap.Metadata, error) { return nil, bitmap.ErrNone }
		}, []string{"fail disk: no metadata here"}},
		{"nbd not loaded", func(d *doctor) { d.machine.module = func(string) (moduleState, error) { return moduleCan, nil } },
			[]string{"warn device: the nbd module, which `device` needs, is not loaded; hint: `modprobe nbd`"}},
		{"no nbd", func(d *doctor) { d.machine.module = func(string) (moduleState, error) { return moduleAbsent, nil } },
			[]string{"fail device: the kernel has no nbd module"}},
		{"nbd by ioctl", func(d *doctor) {
			d.machine.driver = func() (deviceKernel, error) { return driverBy{netlink: false}, nil }
		},
			[]string{"warn device: the nbd module is reached by ioctl only: a device is lost with its connection, and with the daemon; hint: run twinbd on Linux 4.12"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := patient(t, patientConfig)
			tt.ill(d)
			list := notWell(d.visit(t.Context()))
			if len(list) != len(tt.want) {
				t.Fatalf("found\n%s\nwant\n%s", strings.Join(list, "\n"), strings.Join(tt.want, "\n"))
			}
			for i, want := range tt.want {
				if !strings.HasPrefix(list[i], want) {
					t.Errorf("found %q, want %q", list[i], want)
				}
				if strings.HasSuffix(list[i], "hint: ") && !strings.Contains(want, "no metadata") {
					t.Errorf("no remedy: %s", list[i])
				}
			}
		})
	}
}

func withHeader(change func(*bitmap.Header)) func(*doctor) {
	return func(d *doctor) {
		inspect := d.machine.inspect
		d.machine.inspect = func(v *config.Volume) (*bitmap.Metadata, error) {
			m, err := inspect(v)
			change(&m.Header)
			return m, err
		}
	}
}

// What depends on the configuration alone.
func TestDoctorOfOtherConfigurations(t *testing.T) {
	for name, tt := range map[string]struct {
		old, new string
		want     string
	}{
		"ping":         {"address = [\"10.0.0.3:7801\"]", "ping = [\"10.0.0.254\"]", "warn arbiter: a router stands in for a witness: when the nodes do not hear each other and both reach it, both may serve"},
		"no arbiter":   {"[witness]\naddress = [\"10.0.0.3:7801\"]", "", "warn arbiter: nobody takes pg over by himself"},
		"no keys":      {`tls.dir = "/keys"`, "tls.insecure = true", "warn keys: there are no keys"},
		"one network":  {`"10.0.0.1:7800", "192.168.9.1:7800"`, `"10.0.0.1:7800"`, "warn address: there is one path to beta"},
		"on this host": {`"10.0.0.1:7800", `, `"127.0.0.1:7800", `, "warn address: 127.0.0.1 is reached from this machine only"},
	} {
		text := strings.Replace(patientConfig, tt.old, tt.new, 1)
		list := notWell(patient(t, text).visit(t.Context()))
		if len(list) != 1 || !strings.HasPrefix(list[0], tt.want) {
			t.Errorf("%s: found %q, want %q", name, list, tt.want)
		}
	}
	for name, err := range map[string]error{
		"problems": config.Problems{{File: "f", Line: 1, Message: "m", Hint: "h"}, {File: "f", Line: 2, Message: "n"}},
		"no file":  errors.New("open f: no such file"),
	} {
		if found := Doctor(t.Context(), nil, err, ""); !found[0].Bad() || name == "problems" && len(found) != 2 {
			t.Errorf("%s: %v", name, found)
		}
	}
	cfg, err := config.Parse("x", []byte(patientConfig))
	if err != nil {
		t.Fatal(err)
	}
	if found := Doctor(t.Context(), cfg, nil, "gamma"); !found[1].Bad() || !strings.Contains(found[1].Message, "gamma") {
		t.Errorf("another name: %v", found)
	}
}

// The doctor looks at a real node that runs, and at its real peer.
func TestDoctorOfARunningNode(t *testing.T) {
	l := newLab(t, "1MiB")
	l.pair()
	found := Doctor(t.Context(), l.cfg, nil, "alpha")
	for _, f := range found {
		if f.Bad() && f.Check != "directory" && f.Check != "disk" { // a temporary directory may be in memory
			t.Errorf("%+v", f)
		}
	}
	for _, want := range []string{"twinbd  runs as alpha", "beta answers at", "beta has the same configuration", "the witness answers at"} {
		if !slices.ContainsFunc(found, func(f Finding) bool { return strings.Contains(f.Message, want) }) {
			t.Errorf("it does not say %q: %v", want, found)
		}
	}
}
