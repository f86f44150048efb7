// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twinbd/twinbd/internal/config"
)

// job is one pattern of requests.
type job struct {
	name  string
	rw    string // fio's word: randwrite, randread or write
	block int64  // bytes of each request
	depth int    // requests in flight
	flush bool   // a FLUSH after each write
}

// The names are: what, its size, queue depth. Writes w, reads r, writes in
// sequence s, writes with a flush each f.
var jobs = []job{
	{name: "w4k-q1", rw: "randwrite", block: 4 << 10, depth: 1},
	{name: "w4k-q16", rw: "randwrite", block: 4 << 10, depth: 16},
	{name: "w4k-q64", rw: "randwrite", block: 4 << 10, depth: 64},
	{name: "r4k-q1", rw: "randread", block: 4 << 10, depth: 1},
	{name: "r4k-q16", rw: "randread", block: 4 << 10, depth: 16},
	{name: "s128k-q8", rw: "write", block: 128 << 10, depth: 8},
	{name: "s1m-q4", rw: "write", block: 1 << 20, depth: 4},
	{name: "f4k-q1", rw: "randwrite", block: 4 << 10, depth: 1, flush: true},
	{name: "f4k-q16", rw: "randwrite", block: 4 << 10, depth: 16, flush: true},
}

func (j job) reads() bool { return j.rw == "randread" }

// selectJobs returns the jobs whose names are in the comma-separated list or
// begin with one that is; all of them for an empty list. Reads need no intent,
// so that cold leaves them out.
func selectJobs(list string, cold bool) ([]job, error) {
	selected := slices.Clone(jobs)
	if list != "" {
		wanted := strings.Split(list, ",")
		for _, want := range wanted {
			if want == "" || !slices.ContainsFunc(jobs, func(j job) bool { return strings.HasPrefix(j.name, want) }) {
				return nil, fmt.Errorf("no job begins with %q; there are %s", want, strings.Join(jobNames(), ", "))
			}
		}
		selected = slices.DeleteFunc(selected, func(j job) bool {
			return !slices.ContainsFunc(wanted, func(want string) bool { return j.name == want || prefixOnly(want, j.name) })
		})
	}
	if cold {
		selected = slices.DeleteFunc(selected, job.reads)
		if len(selected) == 0 {
			return nil, fmt.Errorf("--cold-intents measures writes only, and no writing job is chosen")
		}
	}
	return selected, nil
}

// prefixOnly reports whether want is a prefix of name but not a job of its
// own, so that w4k-q1 does not bring w4k-q16 along.
func prefixOnly(want, name string) bool {
	return strings.HasPrefix(name, want) && !slices.Contains(jobNames(), want)
}

func jobNames() []string {
	names := make([]string, len(jobs))
	for i, j := range jobs {
		names[i] = j.name
	}
	return names
}

// window is the part of the volume that a run uses.
type window struct {
	offset, length int64
	once           bool // one request for each region, at its start
}

// region is twinbd's default span of an intent.
const region = config.DefaultRegion

// windowOf says where a job of a round (both from 0) works.
func windowOf(o *options, round, job int) window {
	if !o.cold {
		return window{length: o.size}
	}
	run := int64(round*len(o.jobs) + job)
	return window{offset: run * coldWindow, length: coldWindow, once: true}
}
