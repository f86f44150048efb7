// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"

	"github.com/twinbd/twinbd/internal/freeport"
)

// yardstick is a Go program that replicates writes to a peer of its own kind
// and does nothing else: no marks, no sessions, no failures. What it reaches
// is the limit on this machine. It is no part of the project; the environment
// variable YARDSTICK names its folder. As primary it takes -sock, -peer and
// -file, as secondary -sec, -listen and -file.
type yardstick struct {
	servers
	source string
}

func (y *yardstick) start(ctx context.Context) error {
	primary, secondary := filepath.Join(y.disks, "primary"), filepath.Join(y.disks, "secondary")
	if err := y.makeDirs(); err != nil {
		return err
	}
	for _, disk := range []string{primary, secondary} {
		if err := y.fill(disk); err != nil {
			return err
		}
	}
	program, err := filepath.Abs(filepath.Join(y.work, "program"))
	if err != nil {
		return err
	}
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = y.source
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build yardstick: %w: %s", err, lastLine(out))
	}
	ports, err := freeport.Find(1)
	if err != nil {
		return err
	}
	address := fmt.Sprintf("127.0.0.1:%d", ports[0])
	err = y.spawn(ctx, "secondary", accepts("tcp", address),
		program, "-sec", "-listen", address, "-file", secondary)
	if err != nil {
		return err
	}
	return y.spawn(ctx, "primary", accepts("unix", y.socket()),
		program, "-sock", y.socket(), "-peer", address, "-file", primary, "-block", "-loop", "-spin", "60")
}
