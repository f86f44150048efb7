// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// DefaultMountLimit covers the replay of a journal at mount, and the writing of
// all that the cache holds at unmount.
const DefaultMountLimit = 2 * time.Minute

// Mount is the step of a file system, with mount(8) and umount(8), which know
// each type's options and helpers.
type Mount struct {
	Runner  *Runner
	Device  string
	At      string // must be there
	Type    string
	Options string        // as after -o; "": none
	Limit   time.Duration // of either direction; 0: DefaultMountLimit
}

// Step returns the step. Its Down refuses while a process uses the file system,
// and names it. Its Force kills those processes, all that have a file of the
// file system open wherever they come from, detaches it and writes nothing: what
// the cache holds has nowhere to go.
func (m Mount) Step(name string) Step {
	limit := m.Limit
	if limit == 0 {
		limit = DefaultMountLimit
	}
	return Step{Name: name, Up: m.mount, Down: m.unmount, Force: m.detach, UpLimit: limit, DownLimit: limit}
}

func (m Mount) mount(ctx context.Context, order Order) error {
	switch state, other, err := m.look(); {
	case err != nil:
		return err
	case state == ours:
		return nil
	case state == foreign:
		return fmt.Errorf("%s is mounted at %s already; hint: umount %s", other, m.At, m.At)
	}
	if info, err := os.Stat(m.At); err != nil || !info.IsDir() {
		return fmt.Errorf("%s is no directory to mount at; hint: mkdir -p %s", m.At, m.At)
	}
	argv := []string{"mount", "-t", m.Type}
	if m.Options != "" {
		argv = append(argv, "-o", m.Options)
	}
	argv = append(argv, "--", m.Device, m.At)
	// Stays: a file system in user space is a process.
	return m.Runner.Run(ctx, order, Command{Name: "mount", Action: ActionDisk, Argv: argv, Stays: true})
}

// unmount goes on until nothing of the device is mounted there: it may have
// been mounted twice. It tries once more when whoever was in the way is gone
// before he can be named, as a df(1) is.
func (m Mount) unmount(ctx context.Context, order Order) error {
	for again := true; ; {
		if state, _, err := m.look(); state != ours || err != nil {
			return err
		}
		err := m.Runner.Run(ctx, order, Command{Name: "unmount", Action: ActionDisk, Argv: []string{"umount", "--", m.At}})
		failed, exited := errors.AsType[*CommandError](err)
		if err == nil {
			continue
		}
		if !exited || failed.Outcome != Exited {
			return err
		}
		if users := m.users(); len(users) > 0 {
			return fmt.Errorf("%s is in use by %s: %w; hint: end them in the service's stop commands", m.At, list(users), err)
		}
		if !again {
			return fmt.Errorf("%w; no process is seen to use it: look for an NFS export, a loop device, swap or a mount below it", err)
		}
		again = false
	}
}

func (m Mount) detach(ctx context.Context, order Order) error {
	for {
		if state, _, err := m.look(); state != ours || err != nil {
			return err
		}
		killed := m.kill(ctx)
		err := m.Runner.Run(ctx, order, Command{Name: "lazy unmount", Action: ActionDisk, Argv: []string{"umount", "-l", "--", m.At}})
		if err != nil || killed != nil {
			return failure(killed, err)
		}
	}
}

// occupation is what is found at the mount point.
type occupation int

const (
	free occupation = iota
	ours
	foreign
)
