// SPDX-License-Identifier: Apache-2.0

package sim

import (
	"slices"
	"strings"
	"time"
)

// Shrink looks for a smaller schedule that fails in the same way: it leaves out
// faults, then requests of clients, as long as it may. It returns how to run what
// is left.
func Shrink(opt Options, r Result, limit time.Duration) Options {
	opt.Trace = false
	end := time.Now().Add(limit)
	fails := func(o Options) bool {
		return time.Now().Before(end) && kindOf(Run(o).Failure) == kindOf(r.Failure)
	}
	if opt.Keep == nil {
		opt.Keep = newWorld(opt).plan.numbers()
	}
	for again := true; again; {
		again = false
		for i := len(opt.Keep) - 1; i >= 0; i-- {
			try := opt
			try.Keep = slices.Delete(slices.Clone(opt.Keep), i, i+1)
			if fails(try) {
				opt, again = try, true
			}
		}
	}
	if opt.Ops == 0 {
		opt.Ops = r.Stats.Ops
	}
	for step := opt.Ops / 2; step > 0; step /= 2 {
		try := opt
		if try.Ops -= step; try.Ops > 0 && fails(try) {
			opt = try
		}
	}
	return opt
}

// kindOf is the rule that a failure is about, or its first words.
func kindOf(failure string) string {
	kind, _, _ := strings.Cut(failure, ":")
	return kind
}
