// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/dbus"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/twinbd/twinbd/internal/node"
)

// systemd restarts a daemon by ending it and then starting another process. What the
// first has open it may leave in the store that systemd keeps for the unit meanwhile
// (FileDescriptorStoreMax=, sd_pid_notify_with_fds(3)).

const (
	keptPrefix = "twinbd-"             // and a number, that of the descriptor in the process that left it
	keptWord   = keptPrefix + "legacy" // what the numbers mean: an inheritance, as JSON

	leaveLimit = 20 * time.Second // for all of it; the node has limits of its own
	keepLimit  = 5 * time.Second  // for systemd to take what it is sent
)

// leaveToNext ends the process when systemd is about to start the next one and has what
// this one leaves. If it returns, the node has to stop.
func leaveToNext(c *cobra.Command, n *node.Node, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.Context()), leaveLimit)
	defer cancel()
	restarts, err := isRestarted(ctx)
	if err == nil && !restarts {
		return
	}
	if err == nil {
		_, err = successor(ctx, c)
	}
	if err == nil {
		log.Info("this process is about to be replaced by the next one that systemd starts")
		var l *node.Legacy
		if l, err = n.HandOn(ctx); err == nil {
			err = leave(l)
		}
	}
	switch {
	case !n.HandedOn():
		log.Warn("a restart does not go on where this process stops: the service stops here first", "error", err)
	case err != nil:
		log.Error("the process that was to be replaced ends", "error", err)
		os.Exit(exitRefused)
	default:
		os.Exit(0)
	}
}

// isRestarted reports whether systemd ends this process, which is a unit's main one, to
// start another.
func isRestarted(ctx context.Context) (bool, error) {
	if os.Getenv("NOTIFY_SOCKET") == "" {
		return false, nil // it is not systemd's
	}
	conn, err := dbus.NewWithContext(ctx)
	if err != nil {
		return false, fmt.Errorf("ask systemd whether it restarts this process: %w", err)
	}
	defer conn.Close()
	unit, err := conn.GetUnitNameByPID(ctx, uint32(os.Getpid()))
	if err != nil {
		return false, fmt.Errorf("ask systemd for the unit of this process: %w", err)
	}
	jobs, err := conn.ListJobsContext(ctx)
	if err != nil {
		return false, fmt.Errorf("ask systemd for its jobs: %w", err)
	}
	return slices.ContainsFunc(jobs, func(j dbus.JobStatus) bool { return j.Unit == unit && j.JobType == "restart" }), nil
}

// leave has systemd keep what a successor inherits. Without room in its store nothing is
// kept, and no error: then the successor goes on as after a crash.
func leave(l *node.Legacy) error {
	i, all := inherit(l)
	defer runtime.KeepAlive(l) // or its files would be closed as soon as only their numbers are used
	word, err := memoryFile(i.marshal())
	if err != nil {
		return err
	}
	defer word.Close()
	s, err := openSupervisor()
	if err != nil {
		return err
	}
	defer s.Close()
	for _, fd := range all {
		if err := s.tell("FDSTORE=1\nFDNAME="+keptPrefix+strconv.Itoa(fd), fd); err != nil {
			return err
		}
	}
	if err := s.tell("FDSTORE=1\nFDNAME="+keptWord, int(word.Fd())); err != nil {
		return err
	}
	return s.barrier()
}

// kept is what the process before this one left to it, nil if nothing. systemd forgets
// it before any of it is used: a process that comes later could not go on with it.
func kept() (*node.Legacy, error) {
	given := make(map[string]*os.File)
	for _, f := range activation.Files(true) {
		if !strings.HasPrefix(f.Name(), keptPrefix) {
			f.Close()
			continue
		}
		given[f.Name()] = f
	}
	if len(given) == 0 {
		return nil, nil
	}
	if err := forget(given); err != nil {
		return nil, err
	}
	word := given[keptWord]
	if word == nil { // the process before this one was ended while it left it
		for _, f := range given {
			f.Close()
		}
		return nil, nil
	}
	defer word.Close()
	text, err := io.ReadAll(io.NewSectionReader(word, 0, 1<<20))
	if err != nil {
		return nil, fmt.Errorf("read what the process before this one left: %w", err)
	}
	var i inheritance
	if err := json.Unmarshal(text, &i); err != nil {
		return nil, fmt.Errorf("read what the process before this one left: %w", err)
	}
	return i.legacy(func(fd int) (*os.File, error) {
		if f := given[keptPrefix+strconv.Itoa(fd)]; f != nil {
			return f, nil
		}
		return nil, errors.New("it was not kept")
	}), nil
}

func forget(given map[string]*os.File) error {
	s, err := openSupervisor()
	if err != nil {
		return err
	}
	defer s.Close()
	for name := range given {
		if err := s.tell("FDSTOREREMOVE=1\nFDNAME=" + name); err != nil {
			return err
		}
	}
	return s.barrier()
}

// memoryFile is a file with this content that is in memory only.
func memoryFile(content []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate(keptWord, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	f := os.NewFile(uintptr(fd), keptWord)
	if _, err := f.Write(content); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// supervisorSocket is one from which systemd is told words that come with descriptors.
type supervisorSocket struct {
	*os.File
	to unix.SockaddrUnix
}

func openSupervisor() (*supervisorSocket, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	path := os.Getenv("NOTIFY_SOCKET")
	return &supervisorSocket{os.NewFile(uintptr(fd), path), unix.SockaddrUnix{Name: path}}, nil
}

func (s *supervisorSocket) tell(words string, descriptors ...int) error {
	var rights []byte
	if len(descriptors) > 0 {
		rights = unix.UnixRights(descriptors...)
	}
	if err := unix.Sendmsg(int(s.Fd()), []byte(words), rights, &s.to, unix.MSG_NOSIGNAL); err != nil {
		return fmt.Errorf("tell systemd: %w", err)
	}
	return nil
}

// barrier returns when systemd has read all that it was told (sd_notify_barrier(3)).
func (s *supervisorSocket) barrier() error {
	reader, writer, err := os.Pipe()
	if err != nil {
		return err
	}
	defer reader.Close()
	err = s.tell("BARRIER=1", int(writer.Fd()))
	writer.Close()
	if err != nil {
		return err
	}
	if err := reader.SetReadDeadline(time.Now().Add(keepLimit)); err != nil {
		return err
	}
	if _, err := reader.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		return fmt.Errorf("systemd does not read what it is told: %w", err)
	}
	return nil
}
