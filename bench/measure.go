// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// result is one run: one job on one system in one round.
type result struct {
	Round  int    `json:"round"` // from 1
	Job    string `json:"job"`
	System string `json:"system"`
	figures
}

// measureAll starts every system, measures round after round, and stops them.
func measureAll(ctx context.Context, o *options, disks, work string) (results []result, err error) {
	systems := make([]system, len(o.names))
	for i, name := range o.names {
		systems[i] = newSystem(name, o, disks, work)
	}
	defer func() {
		err = errors.Join(err, stopAll(systems))
		for i, s := range systems {
			if a, ok := s.(auditor); ok && err == nil {
				if bad := a.audit(); bad != nil {
					err = fmt.Errorf("%s: %w", o.names[i], bad)
				}
			}
		}
	}()
	for i, s := range systems {
		if err := s.start(ctx); err != nil {
			return nil, fmt.Errorf("start %s: %w", o.names[i], err)
		}
	}
	for round := range o.rounds {
		fmt.Fprintf(os.Stderr, "bench: round %d of %d\n", round+1, o.rounds)
		for number, j := range o.jobs {
			for turn := range systems {
				// Turning the order spreads what one system's run does to the next.
				i := (turn + round) % len(systems)
				f, err := measure(ctx, o, systems[i], j, windowOf(o, round, number), round+1)
				if err != nil {
					return nil, fmt.Errorf("%s on %s: %w", j.name, o.names[i], err)
				}
				results = append(results, result{round + 1, j.name, o.names[i], f})
			}
		}
	}
	return results, nil
}

func stopAll(systems []system) (err error) {
	for _, s := range systems {
		err = errors.Join(err, s.stop())
	}
	return err
}

// measure runs one job on one system.
func measure(ctx context.Context, o *options, s system, j job, w window, seed int) (figures, error) {
	before, err := s.cpuTime()
	if err != nil {
		return figures{}, err
	}
	f, err := runFio(ctx, o, j, w, s.uri(), seed)
	if err != nil {
		return figures{}, err
	}
	after, err := s.cpuTime()
	if err != nil {
		return figures{}, err
	}
	f.CPU = float64((after - before).Microseconds()) / float64(f.Requests)
	return f, nil
}
