// SPDX-License-Identifier: Apache-2.0

//go:build linux

package harness

import (
	"cmp"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/twinbd/twinbd/internal/freeport"
)

// Service is the one service of a lab.
const Service = "db"

// Options say what kind of lab a test needs.
type Options struct {
	Volumes   []string // by default one, "data"
	Size      int64    // of each, in bytes; 32 MiB by default
	Insecure  bool     // no keys
	NoWitness bool
	TCP       bool   // exports on loopback instead of Unix sockets
	Thin      bool   // files that take space as they are written
	Region    string // as in the configuration
	Intents   int
	Pace      string // of the service, as in the configuration; by default defaultPace
	Service   string // more lines for the service
	Volume    string // more lines for each volume
	Disk      string // path of the disks, with {node} and {volume}; by default files of the lab
}

// defaultPace is for tests that are not about takeovers: a busy machine stands still
// for a second or two, and that is to be no takeover.
const defaultPace = `{ heartbeat = "100ms", timeout = "4s" }`

func (o *Options) complete() {
	if len(o.Volumes) == 0 {
		o.Volumes = []string{"data"}
	}
	o.Size = cmp.Or(o.Size, 32<<20)
	o.Pace = cmp.Or(o.Pace, defaultPace)
}

// config is the file that all processes of a lab read.
func (l *Lab) config() string {
	var b strings.Builder
	fmt.Fprintf(&b, "cluster = \"lab\"\n\n")
	for _, n := range l.Nodes() {
		fmt.Fprintf(&b, "[node.%s]\naddress = [\"127.0.0.1:%d\"]\nstate = %q\nrun = %q\n\n",
			n.Name, n.port, n.dir("state"), n.dir("run"))
	}
	if l.Witness != nil {
		fmt.Fprintf(&b, "[witness]\naddress = [\"127.0.0.1:%d\"]\n\n", l.witnessPort)
	}
	if l.options.Insecure {
		fmt.Fprintf(&b, "[tls]\ninsecure = true\n\n")
	} else {
		fmt.Fprintf(&b, "[tls]\ndir = %q\n\n", l.Keys())
	}
	fmt.Fprintf(&b, "[service.%s]\npace = %s\n%s\n\n", Service, l.options.Pace, l.options.Service)
	for _, v := range l.options.Volumes {
		l.configVolume(&b, v)
	}
	return b.String()
}

func (l *Lab) configVolume(b *strings.Builder, name string) {
	o := &l.options
	disk := cmp.Or(o.Disk, filepath.Join(l.Dir, "{node}", "{volume}.img"))
	fmt.Fprintf(b, "[service.%s.volume.%s]\nsize = \"%dKiB\"\ndisk = %q\n", Service, name, o.Size>>10, strings.ReplaceAll(disk, "{volume}", name))
	if o.TCP {
		fmt.Fprintf(b, "export = { alpha = \"tcp:127.0.0.1:%d\", beta = \"tcp:127.0.0.1:%d\" }\n", l.Alpha.exports[name], l.Beta.exports[name])
	}
	if o.Thin {
		fmt.Fprintf(b, "thin = true\n")
	}
	if o.Region != "" {
		fmt.Fprintf(b, "region = %q\n", o.Region)
	}
	if o.Intents != 0 {
		fmt.Fprintf(b, "intents = %d\n", o.Intents)
	}
	fmt.Fprintf(b, "%s\n\n", o.Volume)
}

func freePorts(t testing.TB, count int) []int {
	t.Helper()
	ports, err := freeport.Find(count)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}
