// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/config"
)

func TestSelectJobs(t *testing.T) {
	for _, test := range []struct {
		list string
		cold bool
		want string
	}{
		{"", false, strings.Join(jobNames(), " ")},
		{"w4k", false, "w4k-q1 w4k-q16 w4k-q64"},
		{"w4k-q1", false, "w4k-q1"},
		{"f4k-q16,r4k-q1", false, "r4k-q1 f4k-q16"},
		{"s", false, "s128k-q8 s1m-q4"},
		{"", true, "w4k-q1 w4k-q16 w4k-q64 s128k-q8 s1m-q4 f4k-q1 f4k-q16"},
		{"r4k", true, "error"},
		{"w8k", false, "error"},
		{"w4k,", false, "error"},
	} {
		selected, err := selectJobs(test.list, test.cold)
		var names []string
		for _, j := range selected {
			names = append(names, j.name)
		}
		got := strings.Join(names, " ")
		if err != nil {
			got = "error"
		}
		if got != test.want {
			t.Errorf("selectJobs(%q, cold %v): %s, want %s (%v)", test.list, test.cold, got, test.want, err)
		}
	}
}

// Cold runs must never meet: a region that was written before is warm.
func TestColdWindowsAreApart(t *testing.T) {
	o := &options{cold: true, rounds: 4, jobs: jobs, size: coldWindow * 4 * int64(len(jobs))}
	next := int64(0)
	for round := range o.rounds {
		for number := range o.jobs {
			w := windowOf(o, round, number)
			if w.offset != next {
				t.Fatalf("round %d job %d begins at %d, want %d", round, number, w.offset, next)
			}
			next += w.length
		}
	}
	if next != o.size {
		t.Errorf("windows end at %d, the volume at %d", next, o.size)
	}
}

func TestFioArgs(t *testing.T) {
	has := func(args []string, want string) bool { return slices.Contains(args, want) }
	j := job{name: "f", rw: "randwrite", block: 4096, depth: 16, flush: true}
	warm := fioArgs(j, window{length: 1 << 30}, "nbd+unix:///?socket=s", time.Second, 7)
	for _, want := range []string{"--rw=randwrite", "--runtime=1000ms", "--time_based", "--fsync=1", "--iodepth=16", "--bs=4096", "--randseed=7"} {
		if !has(warm, want) {
			t.Errorf("a warm run lacks %s: %q", want, warm)
		}
	}
	cold := fioArgs(j, window{offset: coldWindow, length: coldWindow, once: true}, "u", time.Second, 7)
	for _, want := range []string{"--rw=write:1044480", "--io_size=8388608", fmt.Sprintf("--offset=%d", coldWindow)} {
		if !has(cold, want) {
			t.Errorf("a cold run lacks %s: %q", want, cold)
		}
	}
	if has(cold, "--time_based") {
		t.Errorf("a cold run goes round by time: %q", cold)
	}
}

const fioSample = `fio: connected to NBD server
{ "jobs": [ { "error": %d,
  "read":  { "total_ios": 3, "iops": 3.5, "bw_bytes": 12000000, "clat_ns": { "N": 3, "percentile": { "50.000000": 1000, "99.000000": 2000, "99.900000": 3000 } } },
  "write": { "total_ios": %d, "iops": 9.5, "bw_bytes": 5000000, "clat_ns": { "N": 9, "percentile": { "50.000000": 4000, "99.000000": 5000, "99.900000": 6000 } } },
  "sync":  { "lat_ns": { "N": %d, "percentile": { "50.000000": 7000, "99.000000": 8000, "99.900000": 9000 } } } } ] }`

func TestParseFio(t *testing.T) {
	write := job{rw: "randwrite"}
	read := job{rw: "randread"}
	flush := job{rw: "randwrite", flush: true}
	for _, test := range []struct {
		name string
		job  job
		out  string
		want figures
		err  string
	}{
		{"write", write, fmt.Sprintf(fioSample, 0, 9, 0), figures{Requests: 9, IOPS: 9.5, MBps: 5, P50: 4, P99: 5, P999: 6}, ""},
		{"read", read, fmt.Sprintf(fioSample, 0, 9, 0), figures{Requests: 3, IOPS: 3.5, MBps: 12, P50: 1, P99: 2, P999: 3}, ""},
		{"flush", flush, fmt.Sprintf(fioSample, 0, 9, 9), figures{Requests: 9, IOPS: 9.5, MBps: 5, P50: 7, P99: 8, P999: 9}, ""},
		{"flush not sent", flush, fmt.Sprintf(fioSample, 0, 9, 0), figures{}, "no flush"},
		{"nothing done", write, fmt.Sprintf(fioSample, 0, 0, 0), figures{}, "no request"},
		{"error", write, fmt.Sprintf(fioSample, 5, 9, 0), figures{}, "error 5"},
		{"no JSON", write, "fio: refused", figures{}, "no JSON"},
		{"cut JSON", write, `{"jobs": [`, figures{}, "read fio's output"},
		{"no job", write, `{"jobs": []}`, figures{}, "0 jobs"},
	} {
		got, err := parseFio(test.job, []byte(test.out))
		if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.err)
		}
		if got != test.want {
			t.Errorf("%s: %+v, want %+v", test.name, got, test.want)
		}
	}
}

func TestParseStat(t *testing.T) {
	got, err := parseStat([]byte("12 (a ) b (c) S 1 12 12 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4"))
	if err != nil || got != 3*time.Second {
		t.Errorf("parseStat: %v, %v; want 3s", got, err)
	}
	for _, bad := range []string{"", "12 (a) S 1", "12 (a) S 1 12 12 0 -1 4194304 100 0 0 0 x 50 0"} {
		if _, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q): no error", bad)
		}
	}
}

// ran makes results of one job with the given requests per second, by round.
func ran(job, system string, rates ...float64) (results []result) {
	for i, rate := range rates {
		results = append(results, result{i + 1, job, system, figures{Requests: 1, IOPS: rate, P99: 100}})
	}
	return results
}

func TestSummaryRatios(t *testing.T) {
	sum := summarise(append(ran("w4k-q16", "twinbd", 10, 40, 20), ran("w4k-q16", "quorum", 5, 10, 8, 9)...))
	best, median, ok := sum.ratio("w4k-q16", "twinbd", "quorum")
	if !ok || best != 4 || median != 20/8.5 {
		t.Errorf("ratio: %v, %v, %v; want 4, %v, true", best, median, ok, 20/8.5)
	}
	if _, _, ok := sum.ratio("w4k-q1", "twinbd", "quorum"); ok {
		t.Error("a job that was not measured has a ratio")
	}
}

func TestJudge(t *testing.T) {
	o := &options{jobs: jobs, names: []string{"twinbd", "quorum"}}
	stalled := ran("w4k-q1", "twinbd", 100)
	stalled[0].P99 = 41e3
	slowFlush := ran("f4k-q1", "twinbd", 100)
	slowFlush[0].P99 = 41e3
	for _, test := range []struct {
		name    string
		results []result
		missed  string // empty: nothing is
	}{
		{"above the floor", append(ran("w4k-q16", "twinbd", 15), ran("w4k-q16", "quorum", 10)...), ""},
		{"below the floor", append(ran("w4k-q16", "twinbd", 14), ran("w4k-q16", "quorum", 10)...), "w4k-q16 / quorum: 1.40"},
		{"below a goal only", append(ran("f4k-q16", "twinbd", 1), ran("f4k-q16", "quorum", 10)...), ""},
		{"peer not measured", ran("w4k-q16", "twinbd", 1), ""},
		{"stall", stalled, "99 % within 41 ms"},
		{"a flush may take long", slowFlush, ""},
	} {
		err := failed(judge(o, summarise(test.results)))
		if test.missed == "" && err != nil || test.missed != "" && (err == nil || !strings.Contains(err.Error(), test.missed)) {
			t.Errorf("%s: %v, want %q", test.name, err, test.missed)
		}
	}
	cold := &options{jobs: jobs, cold: true}
	if v := judge(cold, summarise(append(ran("w4k-q16", "twinbd", 1), ran("w4k-q16", "quorum", 10)...))); v != nil {
		t.Errorf("a cold run is judged: %v", v)
	}
}

// Every must names a job that exists: a misspelt one would be kept for ever.
func TestMustsNameJobs(t *testing.T) {
	for _, m := range musts {
		if !slices.Contains(jobNames(), m.job) || programs[m.peer] == nil {
			t.Errorf("no job %s or no peer %s", m.job, m.peer)
		}
		if m.goal < m.floor {
			t.Errorf("%s / %s: goal %v is below the floor %v", m.job, m.peer, m.goal, m.floor)
		}
	}
}

// The page shows the same musts as the code holds.
func TestPageHasMusts(t *testing.T) {
	page, err := os.ReadFile("../docs/BENCHMARKS.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "## What must hold")
	for _, m := range musts {
		found := false
		for row := range strings.Lines(table) {
			cells := strings.Split(row, "|")
			if len(cells) < 5 || !strings.Contains(cells[1], "`"+m.job+"`") || strings.TrimSpace(cells[2]) != m.peer {
				continue
			}
			floor, _ := strconv.ParseFloat(strings.TrimSpace(cells[3]), 64)
			goal, _ := strconv.ParseFloat(strings.TrimSpace(cells[4]), 64)
			found = floor == m.floor && goal == m.goal
		}
		if !found {
			t.Errorf("docs/BENCHMARKS.md lacks %s / %s: must %v, goal %v", m.job, m.peer, m.floor, m.goal)
		}
	}
}

func TestPrintTable(t *testing.T) {
	o := &options{names: []string{"twinbd", "quorum"}, jobs: []job{{name: "w4k-q16"}}, rounds: 2, time: time.Second, size: 256 << 20, dir: "d", cpu: 1}
	var out bytes.Buffer
	printTable(&out, o, summarise(append(ran("w4k-q16", "twinbd", 30, 20), ran("w4k-q16", "quorum", 10, 20)...)))
	for _, want := range []string{"256 MiB in d, all on processor 1; best of 2 rounds of 1s", "twinbd is", "1.50 ×", "1.67 ×"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("table lacks %q:\n%s", want, &out)
		}
	}
}

func TestPairConfig(t *testing.T) {
	for _, with := range []bool{false, true} {
		p := &pair{
			servers: servers{work: t.TempDir(), disks: t.TempDir(), size: 256 << 20, thin: with},
			tls:     with, witness: with,
		}
		if err := p.writeConfig(); err != nil {
			t.Fatal(err)
		}
		parsed, err := config.Load(p.config())
		if err != nil {
			t.Fatal(err)
		}
		volume := parsed.Volume("bench")
		if volume.Size != p.size || volume.Thin != with || volume.Disk["beta"] != p.disk("beta") ||
			volume.Export["alpha"].Address != p.socket() {
			t.Errorf("volume: %+v", volume)
		}
		if volume.Region != region {
			t.Errorf("cold runs step by %d, the regions are of %d", region, volume.Region)
		}
		if parsed.TLS.Insecure == with || (len(parsed.Witness.Address) == 1) != with {
			t.Errorf("tls: %+v, witness: %+v; want both %v", parsed.TLS, parsed.Witness, with)
		}
	}
}

func TestCompareFiles(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	content := make([]byte, 3<<20+4096)
	write := func(path string, content []byte) {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(a, content)
	write(b, content)
	if err := compareFiles(a, b, int64(len(content))); err != nil {
		t.Errorf("equal files: %v", err)
	}
	content[len(content)-1] = 1
	write(b, content)
	if err := compareFiles(a, b, int64(len(content))); err == nil || !strings.Contains(err.Error(), "offset 3145728") {
		t.Errorf("a difference in the last byte: %v", err)
	}
	if err := compareFiles(a, b, int64(len(content))+1); err == nil {
		t.Error("short files are equal")
	}
}
