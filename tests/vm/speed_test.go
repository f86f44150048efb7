// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"encoding/json"
	"flag"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var (
	speedRounds = flag.Int("vm.speed", 0, "rounds in which to measure twinbd beside other mirrors (`make bench-vm`)")
	speedPlain  = flag.Bool("vm.plain", false, "twinbd without keys, as the others are: what enciphering costs under emulation")
	speedCheck  = flag.Bool("vm.check", false, "fail where a target is missed")
)

// What is measured beside each other, on drives of their own.
const (
	raw      = "raw disk"
	unpaired = "nbdkit, one copy"
	pair     = "twinbd"
	drbd     = "DRBD 8.4, protocol C"
	md       = "md RAID 1 over nbd"
)

// speedSize is of each drive.
const speedSize = 160 << 20

// drbdResource is for DRBD's tool. What is not the default costs no safety: flushes
// stay on.
const drbdResource = `
global { usage-count no; }
resource r0 {
  protocol C;
  device /dev/drbd0;
  disk /dev/vdg;
  meta-disk internal;
  disk { al-extents 6007; }
  net { max-buffers 8000; max-epoch-size 8000; }
  on alpha { address 10.66.0.1:7790; }
  on beta { address 10.66.0.2:7790; }
}
`

// system is one that is measured.
type system struct {
	name, device string
}

// TestSpeed measures what programs get from /dev/nbd0 beside what they get from other
// mirrors over the same network, in one run on the same two machines. In each round
// every system runs every job once, in an order that turns.
func TestSpeed(t *testing.T) {
	if *speedRounds == 0 {
		t.Skip("not asked for: `make bench-vm` runs it")
	}
	c := newCluster(t, options{
		size: speedSize, volume: deviceLine, modules: []string{"nbd", "drbd", "raid1"},
		files:  files{"/etc/drbd.conf": {[]byte(drbdResource), 0o600}},
		drives: []int64{speedSize, speedSize, speedSize, speedSize},
		plain:  *speedPlain,
	})
	systems := c.systems(t)
	s := speeds{c.alpha, make(map[string]map[string][]float64)}
	for _, job := range speedJobs {
		s.rounds(systems, func(one system) { s.note(job.name, one.name, s.node.fio(t, one.device, job)) })
	}
	for i, one := range systems {
		s.node.startPostgres(t, i, one)
	}
	s.rounds(systems, func(one system) {
		s.note(pgbench, one.name, s.node.pgbench(t, slices.Index(systems, one)))
	})
	t.Logf("%d rounds; a second each, the best, and its share of the raw disk's:\n%s", *speedRounds, s.table(systems))
	s.judge(t)
}

// systems sets up what twinbd is measured beside.
func (c *cluster) systems(t testing.TB) []system {
	t.Helper()
	c.alpha.shell(t, "nbdkit --unix=/tmp/one.sock file /dev/vdf; nbd-client -unix /tmp/one.sock /dev/nbd1 -block-size 4096 -connections 2")
	for _, n := range c.nodes() {
		n.shell(t, "mkdir -p /var/lib/drbd /run/drbd /run/lock; drbdadm create-md --force r0; drbdadm up r0")
	}
	c.alpha.shell(t, "drbdadm wait-connect r0; drbdadm new-current-uuid --clear-bitmap r0/0; drbdadm primary r0")
	c.beta.shell(t, "nbdkit --port=10810 file /dev/vdh")
	c.alpha.shell(t, `nbd-client 10.66.0.2 10810 /dev/nbd2 -block-size 4096 -connections 2
export MDADM_NO_UDEV=1
mdadm --create /dev/md0 --level=1 --raid-devices=2 --bitmap=internal --assume-clean --run /dev/vdh /dev/nbd2`)
	return []system{{raw, "/dev/vde"}, {unpaired, "/dev/nbd1"}, {pair, "/dev/nbd0"}, {drbd, "/dev/drbd0"}, {md, "/dev/md0"}}
}

// speedJob is one of fio's.
type speedJob struct {
	name, writes, block string
	depth               int
}

var speedJobs = []speedJob{
	{"4 KiB, depth 1", "randwrite", "4k", 1},
	{"4 KiB, depth 16", "randwrite", "4k", 16},
	{"128 KiB in sequence", "write", "128k", 8},
}

const pgbench = "pgbench"

// speeds are figures of one run, by job and system.
type speeds struct {
	node    *node
	figures map[string]map[string][]float64
}

func (s *speeds) note(job, system string, figure float64) {
	if s.figures[job] == nil {
		s.figures[job] = make(map[string][]float64)
	}
	s.figures[job][system] = append(s.figures[job][system], figure)
}

func (s *speeds) rounds(systems []system, measure func(system)) {
	for round := range *speedRounds {
		for i := range systems {
			measure(systems[(i+round)%len(systems)])
		}
	}
}

// fio returns the requests per second.
func (n *node) fio(t testing.TB, device string, job speedJob) float64 {
	t.Helper()
	text := n.must(t, "fio", "--name=job", "--filename="+device, "--ioengine=libaio", "--direct=1", "--rw="+job.writes, "--bs="+job.block,
		fmt.Sprintf("--iodepth=%d", job.depth), "--size=128m", "--time_based", "--runtime=6", "--ramp_time=1", "--thread", "--output-format=json")
	var out struct {
		Jobs []struct {
			Write struct {
				IOPS float64 `json:"iops"`
			} `json:"write"`
		} `json:"jobs"`
	}
	if err := json.Unmarshal([]byte(text), &out); err != nil || len(out.Jobs) != 1 || out.Jobs[0].Write.IOPS == 0 {
		t.Fatalf("fio on %s: %v\n%s", device, err, text)
	}
	return out.Jobs[0].Write.IOPS
}

// startPostgres makes a file system, and starts a PostgreSQL of its own on it.
func (n *node) startPostgres(t testing.TB, number int, one system) {
	t.Helper()
	n.shell(t, fmt.Sprintf(`at=/mnt/%d
mkdir -p $at
%s %s
mount %[3]s $at
cp -a /srv/pg $at/pg
echo "port = %d`+postgresSettings+`" >>$at/pg/postgresql.conf
`+asPostgres+`/srv/bin/pg_ctl start --wait --timeout=100 --silent --pgdata=$at/pg --log=/tmp/postgres%[1]d.log
`+asPostgres+`/srv/bin/pgbench --initialize --quiet --port=%[4]d 2>/dev/null`, number, makers["ext4"], one.device, postgresPort+number))
}

const postgresPort = 5440

var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// pgbench returns the transactions per second.
func (n *node) pgbench(t testing.TB, number int) float64 {
	t.Helper()
	text := n.shell(t, fmt.Sprintf(asPostgres+"/srv/bin/pgbench --no-vacuum --client=4 --time=12 --port=%d", postgresPort+number))
	found := tps.FindStringSubmatch(text)
	if found == nil {
		t.Fatalf("pgbench says no rate:\n%s", text)
	}
	rate, err := strconv.ParseFloat(found[1], 64)
	if err != nil {
		t.Fatal(err)
	}
	return rate
}

func (s *speeds) best(job, system string) float64 { return slices.Max(s.figures[job][system]) }

func (s *speeds) table(systems []system) string {
	var b strings.Builder
	b.WriteString("| |")
	for _, job := range speedJobs {
		fmt.Fprintf(&b, " %s |", job.name)
	}
	fmt.Fprintf(&b, " %s |\n|%s\n", pgbench, strings.Repeat(" --- |", len(speedJobs)+2))
	for _, one := range systems {
		fmt.Fprintf(&b, "| %s |", one.name)
		for _, job := range speedJobs {
			fmt.Fprintf(&b, " %.0f (%.2f) |", s.best(job.name, one.name), s.best(job.name, one.name)/s.best(job.name, raw))
		}
		fmt.Fprintf(&b, " %.1f (%.2f) |\n", s.best(pgbench, one.name), s.best(pgbench, one.name)/s.best(pgbench, raw))
	}
	return b.String()
}

// judge says where a target is missed: nine tenths of DRBD's transactions, and more
// than md's in everything.
func (s *speeds) judge(t testing.TB) {
	t.Helper()
	least := func(job, other string, ratio float64) {
		if got := s.best(job, pair) / s.best(job, other); got < ratio {
			text := fmt.Sprintf("%s: %.2f of %s, and the target is %.1f", job, got, other, ratio)
			if *speedCheck {
				t.Error(text)
			} else {
				t.Log("target missed: " + text)
			}
		}
	}
	least(pgbench, drbd, 0.9)
	least(pgbench, md, 1)
	for _, job := range speedJobs {
		least(job.name, md, 1)
	}
}
