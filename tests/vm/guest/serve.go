// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/twinbd/twinbd/tests/vm/wire"
)

// server runs what the test asks for.
type server struct {
	mu      sync.Mutex // guards out too
	out     *json.Encoder
	running map[int64]*exec.Cmd
}

// serve answers requests until the port fails.
func serve() error {
	name, err := findPort()
	if err != nil {
		return err
	}
	port, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer port.Close()
	s := &server{out: json.NewEncoder(port), running: make(map[int64]*exec.Cmd)}
	s.answer(wire.Answer{})
	for in := json.NewDecoder(port); ; {
		var r wire.Request
		if err := in.Decode(&r); err != nil {
			return fmt.Errorf("read a request: %w", err)
		}
		if r.Signal != 0 {
			s.signal(r)
		} else {
			s.start(r)
		}
	}
}

// findPort is the device of the serial port with our name. The kernel learns of it a
// moment after the driver is there.
func findPort() (string, error) {
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(5 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return "", err
		}
		for _, file := range names {
			if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == wire.Port {
				return "/dev/" + filepath.Base(filepath.Dir(file)), nil
			}
		}
	}
	return "", errors.New("the test's port has not come")
}

func (s *server) answer(a wire.Answer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.out.Encode(a); err != nil {
		say("answer the test: %v", err)
	}
}

// signal goes to a program and to what it has started.
func (s *server) signal(r wire.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cmd := s.running[r.ID]; cmd != nil {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.Signal(r.Signal)) // it may have ended
	}
}

// start starts a program. Its end is told by another goroutine.
func (s *server) start(r wire.Request) {
	cmd := exec.Command(r.Argv[0], r.Argv[1:]...)
	cmd.Env, cmd.Dir = environment, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.WaitDelay = 200 * time.Millisecond // what it leaves running may hold its output
	cmd.Stdin = bytes.NewReader(r.Stdin)
	cmd.Stdout = output(func(p []byte) { s.answer(wire.Answer{ID: r.ID, Stdout: p}) })
	cmd.Stderr = output(func(p []byte) { s.answer(wire.Answer{ID: r.ID, Stderr: p}) })
	if err := cmd.Start(); err != nil {
		s.answer(wire.Answer{ID: r.ID, Ended: true, Code: 127, Error: err.Error()})
		return
	}
	s.mu.Lock()
	s.running[r.ID] = cmd
	s.mu.Unlock()
	go func() {
		_ = cmd.Wait() // the code says it
		s.mu.Lock()
		delete(s.running, r.ID)
		s.mu.Unlock()
		code := cmd.ProcessState.ExitCode()
		if status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok && status.Signaled() {
			code = 128 + int(status.Signal())
		}
		s.answer(wire.Answer{ID: r.ID, Ended: true, Code: code})
	}()
}

// output passes on what a program prints.
type output func([]byte)

func (f output) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
