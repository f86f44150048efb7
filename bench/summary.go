// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"slices"
)

// key names a line of the table.
type key struct{ job, system string }

// line is what the rounds of one job on one system come to.
type line struct {
	best   figures // the run with the most requests per second
	median figures // each figure's own median
}

// summary is a line for each job and system that was measured.
type summary map[key]line

func summarise(results []result) summary {
	runs := make(map[key][]figures)
	for _, r := range results {
		k := key{r.Job, r.System}
		runs[k] = append(runs[k], r.figures)
	}
	sum := make(summary, len(runs))
	for k, all := range runs {
		sum[k] = line{
			best: slices.MaxFunc(all, func(a, b figures) int { return cmp.Compare(a.IOPS, b.IOPS) }),
			median: figures{
				Requests: int64(medianOf(all, func(f figures) float64 { return float64(f.Requests) })),
				IOPS:     medianOf(all, func(f figures) float64 { return f.IOPS }),
				MBps:     medianOf(all, func(f figures) float64 { return f.MBps }),
				P50:      medianOf(all, func(f figures) float64 { return f.P50 }),
				P99:      medianOf(all, func(f figures) float64 { return f.P99 }),
				P999:     medianOf(all, func(f figures) float64 { return f.P999 }),
				CPU:      medianOf(all, func(f figures) float64 { return f.CPU }),
			},
		}
	}
	return sum
}

// ratio is how many times the requests per second of peer the subject does.
// ok is false when one of them was not measured.
func (s summary) ratio(job, subject, peer string) (best, median float64, ok bool) {
	a, ok1 := s[key{job, subject}]
	b, ok2 := s[key{job, peer}]
	if !ok1 || !ok2 {
		return 0, 0, false
	}
	return a.best.IOPS / b.best.IOPS, a.median.IOPS / b.median.IOPS, true
}

// medianOf is the middle value, or the mean of the two in the middle.
func medianOf(all []figures, of func(figures) float64) float64 {
	values := make([]float64, len(all))
	for i, f := range all {
		values[i] = of(f)
	}
	slices.Sort(values)
	middle := len(values) / 2
	if len(values)%2 == 1 {
		return values[middle]
	}
	return (values[middle-1] + values[middle]) / 2
}
