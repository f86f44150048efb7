// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command filefuzz uses files at random, and holds that they have what was put there.
//
//	filefuzz -dir D -seed N -ops M          M operations, then all is compared
//	filefuzz -dir D -seed N -until FILE     until FILE is there; prints how many that were
//	filefuzz -dir D -seed N -ops M -check   only compares with what M operations leave
//
// Everything follows from the seed: what the next operation is, and what it writes. So
// the last form can say of files that another machine has written, a service having
// moved meanwhile, whether they are right. What a write puts into a file names the
// operation and the place, so that a block that is stale, or of another place, shows
// from when and where it is.
package main

import (
	"flag"
	"fmt"
	"math"
	"os"
)

func main() {
	dir := flag.String("dir", "", "directory, without anything in it unless -check is given")
	seed := flag.Uint64("seed", 1, "what happens")
	ops := flag.Int("ops", math.MaxInt, "how many operations")
	until := flag.String("until", "", "end when this file is there")
	check := flag.Bool("check", false, "only compare")
	flag.Parse()
	if *dir == "" || *ops == math.MaxInt && (*until == "" || *check) {
		flag.Usage()
		os.Exit(2)
	}
	f := newFuzzer(*dir, *seed)
	var err error
	if *check {
		err = f.check(*ops)
	} else {
		err = f.run(*ops, *until)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	fmt.Println(f.model.number)
}
