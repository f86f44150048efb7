// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"strings"
)

// must is a ratio of requests per second that twinbd has to keep to a peer.
type must struct {
	job, peer string
	floor     float64 // below it --check fails; 0: not asked for
	goal      float64 // what should be within reach with all rules on
}

// The floors hold on two processors that are shared by client and all servers,
// with the disks in memory. The goals are what a program reaches that replicates
// and does nothing else, less what marks, checksums and order are reckoned to cost.
var musts = []must{
	{job: "w4k-q1", peer: "quorum", floor: 1.0, goal: 1.2},
	{job: "w4k-q16", peer: "quorum", floor: 1.5, goal: 2.5},
	{job: "w4k-q64", peer: "quorum", floor: 1.5, goal: 3.0},
	{job: "s128k-q8", peer: "quorum", floor: 1.0, goal: 1.3},
	{job: "f4k-q16", peer: "quorum", goal: 2.5},
	{job: "w4k-q16", peer: "nbdkit", goal: 0.45},
	{job: "w4k-q64", peer: "nbdkit", goal: 0.6},
	{job: "s128k-q8", peer: "nbdkit", goal: 0.35},
	{job: "r4k-q1", peer: "nbdkit", goal: 1.0},
	{job: "r4k-q16", peer: "nbdkit", goal: 1.0},
}

// stall is a latency that only a delayed acknowledgement of TCP's explains
// (40 ms) where the disks are in memory.
const stall = 38e3 // microseconds

// verdict is what became of one must, or of the rule against stalls.
type verdict struct {
	Job     string  `json:"job"`
	Peer    string  `json:"peer,omitempty"`
	Ratio   float64 `json:"ratio,omitempty"`
	Floor   float64 `json:"floor,omitempty"`
	Goal    float64 `json:"goal,omitempty"`
	Stalled float64 `json:"p99_us,omitempty"` // 99th percentile, when it is a stall
	Failed  bool    `json:"failed"`
}

// judge compares what was measured with musts. It is silent where the subject
// or the peer was not measured, and with cold intents, which nobody is asked
// to be fast with.
func judge(o *options, sum summary) (verdicts []verdict) {
	const subject = "twinbd"
	if o.cold {
		return nil
	}
	for _, m := range musts {
		ratio, _, ok := sum.ratio(m.job, subject, m.peer)
		if !ok {
			continue
		}
		verdicts = append(verdicts, verdict{
			Job: m.job, Peer: m.peer, Ratio: ratio, Floor: m.floor, Goal: m.goal,
			Failed: ratio < m.floor,
		})
	}
	for _, j := range o.jobs {
		// A flush on a real disk may well take that long.
		line, ok := sum[key{j.name, subject}]
		if ok && !j.flush && line.median.P99 >= stall {
			verdicts = append(verdicts, verdict{Job: j.name, Stalled: line.median.P99, Failed: true})
		}
	}
	return verdicts
}

func (v verdict) String() string {
	if v.Stalled > 0 {
		return fmt.Sprintf("%s: 99 %% within %.0f ms: a stall", v.Job, v.Stalled/1e3)
	}
	text := fmt.Sprintf("%s / %s: %.2f", v.Job, v.Peer, v.Ratio)
	if v.Floor > 0 {
		text += fmt.Sprintf(", must be %.2f", v.Floor)
	}
	return text + fmt.Sprintf(", goal %.2f", v.Goal)
}

// word is the verdict in one.
func (v verdict) word() string {
	switch {
	case v.Failed:
		return "MISSED"
	case v.Ratio >= v.Goal:
		return "goal"
	case v.Floor > 0:
		return "ok"
	}
	return "below goal"
}

// failed returns an error that names every must that was missed.
func failed(verdicts []verdict) error {
	var missed []string
	for _, v := range verdicts {
		if v.Failed {
			missed = append(missed, v.String())
		}
	}
	if len(missed) == 0 {
		return nil
	}
	return fmt.Errorf("missed: %s", strings.Join(missed, "; "))
}
