// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"time"
)

// DefaultFsckLimit is for a replay of the journal and what -p repairs. A check
// of everything takes longer: that is the operator's to start.
const DefaultFsckLimit = 10 * time.Minute

// journalled are the types whose fsck -p replays the journal, repairs what is
// safe to repair, and stops at what is not. Nothing is run for others: xfs and
// btrfs recover when they are mounted, and their repair programs are for humans.
var journalled = []string{"ext2", "ext3", "ext4"}

// Fsck is the step that makes a file system fit to be mounted.
type Fsck struct {
	Runner *Runner
	Device string
	Type   string        // as in mount(8)
	Limit  time.Duration // 0: DefaultFsckLimit
}

// Step returns the step. It needs nothing undone.
func (f Fsck) Step(name string) Step {
	step := Step{Name: name, UpLimit: f.Limit}
	if step.UpLimit == 0 {
		step.UpLimit = DefaultFsckLimit
	}
	if slices.Contains(journalled, f.Type) {
		step.Up = f.check
	}
	return step
}

func (f Fsck) check(ctx context.Context, order Order) error {
	if mounted, err := isMounted(f.Device); mounted || err != nil {
		return err // a daemon that was restarted; the file system is in use
	}
	program := "fsck." + f.Type
	err := f.Runner.Run(ctx, order, Command{Name: "file system check", Action: ActionDisk, Argv: []string{program, "-p", f.Device}})
	if errors.Is(err, exec.ErrNotFound) {
		return fmt.Errorf("%w; hint: apt install e2fsprogs", err)
	}
	failed, ok := errors.AsType[*CommandError](err)
	if !ok || failed.Outcome != Exited {
		return err
	}
	return f.explain(failed)
}

// explain knows the bits of fsck(8)'s exit status.
func (f Fsck) explain(failed *CommandError) error {
	const corrected, reboot, uncorrected, cancelled = 1, 2, 4, 32
	by := "fsck." + f.Type
	switch status := failed.Status; {
	case status == corrected:
		return nil
	case status < 64 && status&uncorrected != 0:
		return fmt.Errorf("the file system on %s has errors that are not safe to repair without a human: %w; hint: `twinbd attach` the volume on the node that serves, run %s %s, `twinbd detach` it, then stop and start the service", f.Device, failed, by, f.Device)
	case status < 64 && status&reboot != 0:
		return fmt.Errorf("the file system on %s was repaired while it was in use: %w; hint: reboot this node", f.Device, failed)
	case status < 64 && status&cancelled != 0:
		return fmt.Errorf("the check of %s was interrupted: %w", f.Device, failed)
	default:
		return fmt.Errorf("%s cannot be checked: %w; hint: is there an %s file system on it?", f.Device, failed, f.Type)
	}
}
