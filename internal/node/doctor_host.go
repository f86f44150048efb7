// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

// What the doctor finds on the machine itself, disks aside.

// browserWarning is how long before a certificate ends the doctor says so.
const browserWarning = 30 * 24 * time.Hour

// checkKeys: all keys are there, the own one is private. A certificate's dates
// matter to browsers only.
func (d *doctor) checkKeys(context.Context) []Finding {
	if d.cfg.TLS.Insecure {
		return []Finding{warned("`twinbd init`, and tls.dir in place of tls.insecure", "there are no keys: whoever reaches a port may do anything")}
	}
	keys, err := d.machine.loadKeys()
	if err == nil {
		names := []string{d.peer.Name}
		if len(d.cfg.Witness.Address) > 0 {
			names = append(names, config.WitnessName)
		}
		err = keys.Check(names...)
	}
	if err != nil {
		if errors.Is(err, fs.ErrPermission) {
			return []Finding{unseen("the key of "+d.self.Name, err)}
		}
		return []Finding{failed("", err)}
	}
	d.keys = keys
	found := []Finding{good("the keys in %s are complete, and the own one is private", d.cfg.TLS.Dir)}
	if d.cfg.Console.Listen != nil {
		found = append(found, d.browserDates()...)
	}
	return found
}

func (d *doctor) browserDates() []Finding {
	file := filepath.Join(d.cfg.TLS.Dir, d.self.Name+".crt")
	data, err := d.machine.readFile(file)
	if err != nil {
		return []Finding{unseen(file, err)}
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return []Finding{bad("copy the directory made by `twinbd init` again", "%s holds no certificate", file)}
	}
	certificate, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return []Finding{bad("copy the directory made by `twinbd init` again", "%s: %v", file, err)}
	}
	const hint = "make new ones with `twinbd init` in an empty directory, for all machines; the nodes themselves do not mind"
	switch left := certificate.NotAfter.Sub(d.machine.now()); {
	case left <= 0:
		return []Finding{warned(hint, "browsers do not trust the console any more: the certificate ended on %s", certificate.NotAfter.Format(time.DateOnly))}
	case left < browserWarning:
		return []Finding{warned(hint, "browsers trust the console until %s only", certificate.NotAfter.Format(time.DateOnly))}
	}
	return nil
}

// checkDaemon: whether this node runs, and who may talk to it.
func (d *doctor) checkDaemon(ctx context.Context) []Finding {
	socket := d.self.ControlSocket()
	var found []Finding
	if info, err := d.machine.stat(socket); err == nil && info.Mode().Perm()&0o007 != 0 {
		found = append(found, bad("chmod 660 "+socket, "%s is open to everybody (mode %#o): who may open it may do anything", socket, info.Mode().Perm()))
	}
	status, err := d.machine.status(ctx)
	switch r := control.Refuse(err); {
	case err == nil:
		d.status = status
		found = append(found, good("twinbd %s runs as %s", status.Version, d.self.Name))
	case strings.Contains(r.Message, "permission denied"):
		found = append(found, Finding{Level: LevelSkip, Message: "whether twinbd runs was not looked at: " + r.Message, Hint: r.Hint})
	default:
		found = append(found, warned(r.Hint, "%s", r.Message))
	}
	return found
}

// capability is one that the node uses, and for what.
type capability struct {
	bit     uint
	name    string
	purpose string
	needed  func(*config.Config) bool
	lesser  bool // the node works without it, only worse
}

func anyService(is func(*config.Service) bool) func(*config.Config) bool {
	return func(c *config.Config) bool {
		for i := range c.Services {
			if is(&c.Services[i]) {
				return true
			}
		}
		return false
	}
}

func hasIP(s *config.Service) bool { return len(s.IP) > 0 }

func hasDevice(s *config.Service) bool {
	for i := range s.Volumes {
		if s.Volumes[i].Device != nil {
			return true
		}
	}
	return false
}

// capabilities are those of which a node without root needs some; the numbers are
// the kernel's (linux/capability.h).
var capabilities = []capability{
	{12, "CAP_NET_ADMIN", "virtual addresses and /dev/nbdX", anyService(func(s *config.Service) bool { return hasIP(s) || hasDevice(s) }), false},
	{13, "CAP_NET_RAW", "announcing and probing virtual addresses", anyService(hasIP), false},
	{21, "CAP_SYS_ADMIN", "/dev/nbdX and mounting", anyService(hasDevice), false},
	{14, "CAP_IPC_LOCK", "keeping a process that is the machine's disk in memory", anyService(hasDevice), true},
	{24, "CAP_SYS_RESOURCE", "marking it as an I/O flusher, and keeping it from the out-of-memory killer", anyService(hasDevice), true},
	{5, "CAP_KILL", "ending an application that runs as another user", anyService(func(s *config.Service) bool { return len(s.Start) > 0 }), false},
}

// checkRights: what this process may do, which is what a node started the same way
// may.
func (d *doctor) checkRights(context.Context) []Finding {
	have, err := d.machine.capabilities()
	if err != nil {
		return []Finding{unseen("what a node may do", err)}
	}
	var found []Finding
	for _, c := range capabilities {
		if !c.needed(d.cfg) || have&(1<<c.bit) != 0 {
			continue
		}
		say := bad
		if c.lesser {
			say = warned
		}
		found = append(found, say("run twinbd as root, or give it "+c.name, "a node started by this user lacks %s, for %s", c.name, c.purpose))
	}
	if len(found) == 0 {
		found = append(found, good("a node started by this user may do all that the configuration asks for"))
	}
	return found
}

// checkCommands: the programs of the application can be found.
func (d *doctor) checkCommands(context.Context) []Finding {
	var found []Finding
	for _, s := range d.cfg.Services {
		lines := map[string][]string{"start": s.Start, "stop": s.Stop}
		if s.Fence != "" {
			lines["fence"] = []string{s.Fence}
		}
		if s.Check != nil {
			lines["check"] = []string{s.Check.Command}
		}
		bads := 0
		total := 0
		for _, key := range []string{"start", "stop", "check", "fence"} {
			for _, line := range lines[key] {
				total++
				if f, ok := d.command(fmt.Sprintf("service.%s.%s", s.Name, key), line); !ok {
					found = append(found, f)
					bads++
				}
			}
		}
		if total > 0 && bads == 0 {
			found = append(found, good("the commands of %s are there", s.Name))
		}
	}
	return found
}

// shellWords are what /bin/sh knows by itself; a line that begins with one, or with
// a character that means something to the shell, is not looked into.
var shellWords = map[string]bool{
	".": true, ":": true, "[": true, "case": true, "cd": true, "command": true, "eval": true, "exec": true, "exit": true, "export": true,
	"for": true, "if": true, "set": true, "trap": true, "ulimit": true, "umask": true, "unset": true, "until": true, "wait": true, "while": true, "!": true,
}

// unitPrefix marks a systemd unit in place of a command.
const unitPrefix = "unit:"

// command looks for the program of a line. It reports whether nothing is wrong.
func (d *doctor) command(key, line string) (Finding, bool) {
	if unit, ok := strings.CutPrefix(line, unitPrefix); ok {
		if _, err := d.machine.stat("/run/systemd/system"); err != nil {
			return bad("name a command instead", "%s: there is no systemd here to start %s", key, strings.TrimSpace(unit)), false
		}
		return Finding{}, true
	}
	word := ""
	for _, w := range strings.Fields(line) {
		if name, _, assigns := strings.Cut(w, "="); assigns && !strings.ContainsAny(name, "/$\"'") {
			continue
		}
		word = w
		break
	}
	if word == "" || shellWords[word] || strings.ContainsAny(word, "$`\"'(){}|&;<>*?~\\") {
		return Finding{}, true
	}
	if _, err := d.machine.lookPath(word); err != nil {
		return bad("install it, or give its whole path", "%s: there is no program %s to run", key, word), false
	}
	return Finding{}, true
}
