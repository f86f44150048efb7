// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/internal/node"
)

// A daemon that is told to be replaced becomes its own successor: the same process
// executes the program that is in place now, which reads the configuration anew, and
// inherits descriptors. One that systemd restarts leaves them to the next process
// instead, see keep_linux.go.

// legacyVariable tells a successor what it has inherited.
const legacyVariable = "TWINBD_LEGACY"

// inheritance is its content, as JSON.
type inheritance struct {
	Sockets map[string][]int `json:"sockets"` // descriptors, by volume
	Pipes   []int            `json:"pipes"`   // descriptors
	Served  []string         `json:"served"`  // services
	Running []string         `json:"running"` // services
	Stop    bool             `json:"stop"`    // in good order: this process was told to, meanwhile
}

// legacy is what this process has inherited, nil if it succeeds nobody, and whether it is
// to stop as soon as it serves.
func legacy() (l *node.Legacy, stop bool, err error) {
	text, ok := os.LookupEnv(legacyVariable)
	if !ok {
		l, err := kept()
		return l, false, err
	}
	os.Unsetenv(legacyVariable) // no child's
	var i inheritance
	if err := json.Unmarshal([]byte(text), &i); err != nil {
		return nil, false, fmt.Errorf("read %s: %w; hint: only twinbd itself sets it", legacyVariable, err)
	}
	return i.legacy(takeDescriptor), i.Stop, nil
}

// legacy makes files of the descriptors. One that take cannot make a file of is left
// out: what it was for is made up for as after a crash.
func (i *inheritance) legacy(take func(fd int) (*os.File, error)) *node.Legacy {
	files := func(descriptors []int) (all []*os.File) {
		for _, fd := range descriptors {
			if f, err := take(fd); err == nil {
				all = append(all, f)
			}
		}
		return all
	}
	l := &node.Legacy{Sockets: make(map[string][]*os.File), Pipes: files(i.Pipes), Served: i.Served, Running: i.Running}
	for volume, descriptors := range i.Sockets {
		l.Sockets[volume] = files(descriptors)
	}
	return l
}

// inherit is the other way round; all are the descriptors in it.
func inherit(l *node.Legacy) (i *inheritance, all []int) {
	i = &inheritance{Sockets: make(map[string][]int), Pipes: descriptors(l.Pipes), Served: l.Served, Running: l.Running}
	all = slices.Clone(i.Pipes)
	for volume, files := range l.Sockets {
		i.Sockets[volume] = descriptors(files)
		all = append(all, i.Sockets[volume]...)
	}
	return i, all
}

func (i *inheritance) marshal() []byte {
	text, err := json.Marshal(i)
	if err != nil {
		panic("twinbd: marshal what a successor inherits: " + err.Error())
	}
	return text
}

// obey replaces the process whenever that is asked for, until it is told to end, which
// is when the command's context ends: then it leaves what it has to the next process if
// systemd restarts it, and else has the node stop. A successor that could not start is
// refused, and the node serves on.
func obey(c *cobra.Command, n *node.Node, stop func(), log *slog.Logger) {
	told := c.Context()
	for asked := hangups(told); ; {
		select {
		case <-told.Done():
			leaveToNext(c, n, log)
			stop()
			return
		case <-asked:
		}
		program, err := successor(told, c)
		if err == nil {
			log.Info("this process is about to be replaced", "program", program)
			supervisor(daemon.SdNotifyReloading)
			err = replace(told, n, program)
		}
		if n.HandedOn() {
			log.Error("the process that was to be replaced ends", "error", err)
			os.Exit(exitRefused) // who started it starts another, which goes on as after a crash
		}
		log.Error("not replaced", "error", err)
		supervisor(daemon.SdNotifyReady)
	}
}

// successor is the program to be executed, which has shown that it can run, and
// takes the configuration.
func successor(ctx context.Context, c *cobra.Command) (string, error) {
	program, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find the program: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	said, err := exec.CommandContext(ctx, program, "check", "--config", c.Flag("config").Value.String()).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s check: %w: %s", program, err, strings.TrimSpace(string(said)))
	}
	return program, nil
}

// replace does not return but with an error.
func replace(ctx context.Context, n *node.Node, program string) error {
	l, err := n.HandOn(ctx)
	if err != nil {
		return err
	}
	i, all := inherit(l)
	i.Stop = ctx.Err() != nil
	err = become(program, append(os.Environ(), legacyVariable+"="+string(i.marshal())), all)
	runtime.KeepAlive(l) // or its files would be closed as soon as only their numbers are used
	return err
}

func descriptors(files []*os.File) (list []int) {
	for _, f := range files {
		list = append(list, int(f.Fd()))
	}
	return list
}

// stopLater stops a successor of a process that was told to stop while it was being
// replaced: when it serves again, so that it hands over in good order.
func stopLater(ctx context.Context, n *node.Node, stop func()) {
	n.AwaitReady(ctx, settleLimit)
	stop()
}

const (
	settleLimit = 10 * time.Second // for a successor to serve
	checkLimit  = 10 * time.Second // for a program to check the configuration
)
