// SPDX-License-Identifier: Apache-2.0

package main

import (
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/twinbd/twinbd/internal/config"
)

// options is what the command line says.
type options struct {
	twinbd  string        // the binary under test
	names   []string      // of the systems, the one that is compared first
	jobs    []job         // what is measured
	rounds  int           // how often
	time    time.Duration // of one run
	dir     string        // where the disks are
	size    int64         // of the volume in bytes
	tls     bool          // between the nodes of the pair
	witness bool          // a witness beside the pair
	cold    bool          // every write needs a new intent
	cpu     int           // the one processor for everything, or -1
	json    string        // file for all results
	check   bool          // a missed must is an error

	yardstick string // folder of a Go program to measure beside the others
}

// coldWindow is the part of the volume that one job of one round writes to
// when intents are to be cold: the regions of this much are touched once each.
const coldWindow = 2 << 30

func parseOptions(args []string, out io.Writer) (*options, error) {
	o := &options{size: 256 << 20, yardstick: os.Getenv("YARDSTICK")}
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(out)
	flags.StringVar(&o.twinbd, "twinbd", "bin/twinbd", "`binary` under test")
	systems := flags.String("systems", "", "comma-separated `names`: twinbd, nbdkit, quorum, and yardstick where $YARDSTICK is a Go program's folder (default all)")
	jobs := flags.String("jobs", "", "comma-separated `names` or prefixes, such as w4k or f4k-q16 (default all)")
	flags.IntVar(&o.rounds, "rounds", 5, "`number` of rounds")
	flags.DurationVar(&o.time, "time", time.Second, "`duration` of one run")
	flags.StringVar(&o.dir, "dir", "/dev/shm", "`directory` for the disks; choose one on ext4 to see real flushes")
	flags.Func("size", "`size` of the volume (default 256MiB)", func(s string) (err error) {
		o.size, err = config.ParseSize(s)
		return err
	})
	flags.BoolVar(&o.tls, "tls", false, "TLS between the nodes of the pair")
	flags.BoolVar(&o.witness, "witness", false, "run a witness beside the pair")
	flags.BoolVar(&o.cold, "cold-intents", false, "write each region of the volume once, so that every write needs a new intent; thin disks, no reads")
	flags.IntVar(&o.cpu, "cpu", -1, "run everything on this one `processor`: the most repeatable figures")
	flags.StringVar(&o.json, "json", "", "write all results to this `file`")
	flags.BoolVar(&o.check, "check", false, "exit 1 when a ratio is below what it must be")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	if err := o.choose(*systems, *jobs); err != nil {
		return nil, err
	}
	return o, o.validate()
}

func (o *options) choose(systems, jobs string) (err error) {
	if o.jobs, err = selectJobs(jobs, o.cold); err != nil {
		return err
	}
	known := []string{"twinbd", "nbdkit", "quorum"}
	if o.yardstick != "" {
		known = append(known, "yardstick")
	}
	o.names = known
	if systems == "" {
		return nil
	}
	o.names = strings.Split(systems, ",")
	for i, name := range o.names {
		switch {
		case name == "yardstick" && o.yardstick == "":
			return fmt.Errorf("system yardstick needs the environment variable YARDSTICK, the folder of its program")
		case !slices.Contains(known, name):
			return fmt.Errorf("unknown system %q; there are %s", name, strings.Join(known, ", "))
		case slices.Contains(o.names[:i], name):
			return fmt.Errorf("system %q is named twice", name)
		}
	}
	return nil
}

// validate holds the rules between the options, and looks for the programs
// that the chosen systems need before anything is started.
func (o *options) validate() error {
	switch {
	case o.rounds < 1:
		return fmt.Errorf("--rounds %d: at least 1 is needed", o.rounds)
	case o.time < 100*time.Millisecond:
		return fmt.Errorf("--time %v: at least 100ms is needed", o.time)
	case o.size < 16<<20 || o.size%(1<<20) != 0:
		return fmt.Errorf("--size %d: at least 16MiB in whole MiB is needed", o.size)
	}
	if o.cold {
		o.size = coldWindow * int64(len(o.jobs)) * int64(o.rounds)
	}
	need := []string{"fio"}
	for _, name := range o.names {
		need = append(need, programs[name]...)
	}
	if slices.Contains(o.names, "twinbd") {
		need = append(need, o.twinbd)
	}
	if o.cpu >= 0 {
		need = append(need, "taskset")
	}
	for _, program := range need {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w; hint: tests/setup as root installs what the benchmark needs, make build makes the binary", err)
		}
	}
	return nil
}

// programs are what each system runs besides twinbd itself.
var programs = map[string][]string{
	"nbdkit":    {"nbdkit"},
	"quorum":    {"nbdkit", "qemu-storage-daemon"},
	"yardstick": {"go"},
}
