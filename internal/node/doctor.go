// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/trust"
	"github.com/twinbd/twinbd/vip"
)

// The doctor looks at a machine as a node would find it, and changes nothing. It
// runs beside the node or without it, by anybody: what it may not look at it says.

// Level is how bad a finding is.
type Level string

// The levels.
const (
	LevelOK   Level = "ok"
	LevelSkip Level = "skip" // not looked at; the message says why
	LevelWarn Level = "warn" // works, and somebody should know
	LevelFail Level = "fail" // keeps the node from working
)

// Finding is what one look has found.
type Finding struct {
	Level   Level  `json:"level"`
	Check   string `json:"check"` // what was looked at
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"` // the remedy
}

// Bad reports whether a finding keeps the node from working.
func (f Finding) Bad() bool { return f.Level == LevelFail }

// doctor is one visit.
type doctor struct {
	cfg        *config.Config
	self, peer *config.Node
	keys       *trust.Keys
	status     *control.Status // of the node that runs here; nil: none answers
	machine    machine
}

// machine is all contact that the checks have with the world.
type machine struct {
	now          func() time.Time
	loadKeys     func() (*trust.Keys, error)
	readFile     func(path string) ([]byte, error)
	stat         func(path string) (fs.FileInfo, error)
	lookPath     func(program string) (string, error)
	interfaces   func() ([]netInterface, error)
	askPeer      func(ctx context.Context, at netip.AddrPort) (config.Values, error)
	reachWitness func(ctx context.Context, at string) error
	ping         func(ctx context.Context, ip netip.Addr) error
	links        func(s *config.Service) ([]vip.Link, error)
	probe        func(ctx context.Context, s *config.Service) ([]vip.Answer, error)
	inspect      func(v *config.Volume) (*bitmap.Metadata, error)
	fileSystem   func(path string) (fileSystem, error)
	cache        func(path string) (string, error) // a device's write cache, in the kernel's words
	capabilities func() (uint64, error)            // of this process
	module       func(name string) (moduleState, error)
	driver       func() (deviceKernel, error) // of devices
	status       func(ctx context.Context) (*control.Status, error)
}

// netInterface is one of the machine's.
type netInterface struct {
	name     string
	carries  bool // it is up and has a carrier
	prefixes []netip.Prefix
}

// fileSystem is what a path lies on.
type fileSystem struct {
	kind   string // as mount calls it; a number when it is not known
	free   int64  // bytes
	device uint64
}

// check is one look.
type check struct {
	name string
	look func(*doctor, context.Context) []Finding
}

// checks are all, in the order in which they are shown.
var checks = []check{
	{"keys", (*doctor).checkKeys},
	{"daemon", (*doctor).checkDaemon},
	{"address", (*doctor).checkAddresses},
	{"peer", (*doctor).checkPeer},
	{"arbiter", (*doctor).checkArbiter},
	{"virtual ip", (*doctor).checkVirtual},
	{"rights", (*doctor).checkRights},
	{"commands", (*doctor).checkCommands},
	{"directory", (*doctor).checkDirectories},
	{"disk", (*doctor).checkDisks},
	{"device", (*doctor).checkDevices},
}

// doctorTimeout bounds one check.
const doctorTimeout = 15 * time.Second

// Doctor looks at everything that a node needs here. cfg and err are what reading
// the configuration gave, self is the node's name as --node gives it, or "".
func Doctor(ctx context.Context, cfg *config.Config, err error, self string) []Finding {
	if err != nil {
		return configFindings(err)
	}
	n, err := cfg.Self(self)
	if err != nil {
		return []Finding{{LevelOK, "configuration", "read and checked", ""}, failed("name", err)}
	}
	d := &doctor{cfg: cfg, self: n, peer: cfg.Peer(n.Name)}
	d.machine = d.thisMachine()
	found := []Finding{
		{LevelOK, "configuration", "read and checked", ""},
		{LevelOK, "name", fmt.Sprintf("this node is %s, its peer %s", n.Name, d.peer.Name), ""},
	}
	return append(found, d.visit(ctx)...)
}

// visit makes all checks: the first two in order, for the others go by what they
// learn; the others, which wait for networks, at the same time.
func (d *doctor) visit(ctx context.Context) []Finding {
	found := make([][]Finding, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		run := func() {
			ctx, cancel := context.WithTimeout(ctx, doctorTimeout)
			defer cancel()
			found[i] = c.look(d, ctx)
			for j := range found[i] {
				found[i][j].Check = c.name
			}
		}
		if i < 2 {
			run()
		} else {
			wg.Go(run)
		}
	}
	wg.Wait()
	var all []Finding
	for _, f := range found {
		all = append(all, f...)
	}
	return all
}

// The makers of findings; visit names the check.

func good(format string, args ...any) Finding {
	return Finding{Level: LevelOK, Message: fmt.Sprintf(format, args...)}
}

func warned(hint, format string, args ...any) Finding {
	return Finding{Level: LevelWarn, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func bad(hint, format string, args ...any) Finding {
	return Finding{Level: LevelFail, Message: fmt.Sprintf(format, args...), Hint: hint}
}

// failed is bad for an error that brings its remedy along.
func failed(check string, err error) Finding {
	r := control.Refuse(err)
	return Finding{LevelFail, check, r.Message, r.Hint}
}

// unseen is for an error of looking: the check could not be made.
func unseen(what string, err error) Finding {
	f := Finding{Level: LevelSkip, Message: fmt.Sprintf("%s was not looked at: %v", what, control.Refuse(err).Message)}
	switch {
	case errors.Is(err, fs.ErrPermission):
		f.Hint = "run the doctor as root"
	case errors.Is(err, errors.ErrUnsupported):
		f.Message = what + " is not looked at on this system"
	}
	return f
}

func configFindings(err error) []Finding {
	problems, ok := errors.AsType[config.Problems](err)
	if !ok {
		return []Finding{failed("configuration", err)}
	}
	var found []Finding
	for _, p := range problems {
		found = append(found, failed("configuration", p))
	}
	return found
}

// thisMachine is the real one.
func (d *doctor) thisMachine() machine {
	look := onlooker{d}
	return machine{
		now: time.Now, readFile: os.ReadFile, stat: os.Stat, lookPath: exec.LookPath,
		loadKeys:   func() (*trust.Keys, error) { return trust.Load(d.cfg.TLS.Dir, d.self.Name) },
		interfaces: look.interfaces, askPeer: look.askPeer, reachWitness: look.reachWitness,
		ping: vip.Ping, links: look.links, probe: look.probe,
		inspect:    func(v *config.Volume) (*bitmap.Metadata, error) { return Inspect(d.cfg, v, d.self.Name) },
		fileSystem: fileSystemOf, cache: writeCacheOf, capabilities: ownCapabilities, module: moduleOf, driver: openKernel, status: look.status,
	}
}
