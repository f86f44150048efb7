// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"
)

// printTable prints a block for each job, the first system on top; the
// others have its ratio to them, of the best rounds and of the medians.
func printTable(out io.Writer, o *options, sum summary) {
	subject := o.names[0]
	fmt.Fprintf(out, "%s; best of %d rounds%s, median beside it\n\n", setting(o), o.rounds, span(o))
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(table, "job\tsystem\tper s\tmedian\tMB/s\tp50 µs\tp99 µs\tCPU µs\t%s is\tby median\t\n", subject)
	for _, j := range o.jobs {
		for i, name := range o.names {
			line := sum[key{j.name, name}]
			fmt.Fprintf(table, "%s\t%s\t%.0f\t%.0f\t%.0f\t%.0f\t%.0f\t%.1f\t", j.name, name,
				line.best.IOPS, line.median.IOPS, line.best.MBps, line.best.P50, line.best.P99, line.best.CPU)
			if best, median, ok := sum.ratio(j.name, subject, name); ok && i > 0 {
				fmt.Fprintf(table, "%.2f ×\t%.2f ×\t", best, median)
			} else {
				fmt.Fprint(table, "\t\t")
			}
			fmt.Fprintln(table)
		}
	}
	table.Flush()
}

// span is how long a run takes. With cold intents it ends with the regions.
func span(o *options) string {
	if o.cold {
		return ""
	}
	return fmt.Sprintf(" of %v", o.time)
}

// setting says in a line what was measured.
func setting(o *options) string {
	parts := []string{fmt.Sprintf("%d MiB in %s", o.size>>20, o.dir)}
	if o.cpu >= 0 {
		parts = append(parts, fmt.Sprintf("all on processor %d", o.cpu))
	} else {
		parts = append(parts, fmt.Sprintf("%d processors", runtime.NumCPU()))
	}
	if o.tls {
		parts = append(parts, "TLS between the nodes")
	}
	if o.cold {
		parts = append(parts, "every write in a region of its own")
	}
	return strings.Join(parts, ", ")
}

func printVerdicts(out io.Writer, verdicts []verdict) {
	if len(verdicts) == 0 {
		return
	}
	fmt.Fprintln(out)
	for _, v := range verdicts {
		fmt.Fprintf(out, "%-10s  %v\n", v.word(), v)
	}
}

// report is the form of the --json file.
type report struct {
	Time     time.Time `json:"time"`
	Machine  machine   `json:"machine"`
	Setting  string    `json:"setting"`
	Rounds   int       `json:"rounds"`
	Runtime  string    `json:"runtime"`
	Results  []result  `json:"results"`
	Verdicts []verdict `json:"verdicts"`
}

// machine is what the figures depend on besides the programs' own code.
type machine struct {
	Processors int               `json:"processors"`
	Model      string            `json:"model,omitempty"`
	Kernel     string            `json:"kernel,omitempty"`
	Go         string            `json:"go"`
	Versions   map[string]string `json:"versions"` // what each program says of itself
}

func writeReport(path string, o *options, results []result, verdicts []verdict) error {
	text, err := json.MarshalIndent(report{
		Time: time.Now().UTC(), Machine: describeMachine(o), Setting: setting(o),
		Rounds: o.rounds, Runtime: o.time.String(), Results: results, Verdicts: verdicts,
	}, "", "  ")
	if err != nil {
		return fmt.Errorf("make report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("write report: %w", err)
	}
	return nil
}

// describeMachine leaves out what the system does not tell.
func describeMachine(o *options) machine {
	m := machine{Processors: runtime.NumCPU(), Go: runtime.Version(), Versions: make(map[string]string)}
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease")
	m.Kernel = strings.TrimSpace(string(kernel))
	processors, _ := os.ReadFile("/proc/cpuinfo")
	for text := range strings.Lines(string(processors)) {
		if name, value, ok := strings.Cut(text, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.Model = strings.TrimSpace(value)
			break
		}
	}
	for program, args := range map[string][]string{
		"fio": {"--version"}, "nbdkit": {"--version"}, "qemu-storage-daemon": {"--version"}, o.twinbd: {"version"},
	} {
		if out, err := exec.Command(program, args...).Output(); err == nil {
			first, _, _ := strings.Cut(string(out), "\n")
			m.Versions[program] = first
		}
	}
	return m
}
