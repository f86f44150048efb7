// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

// scan is the herd of those processes that carry a mark in the environment that
// they were started with, or belong to a session. The mark survives setsid(2)
// and double forks; the session survives a cleaned environment, as by sudo.
type scan struct {
	mark    []byte // how TWINBD_RUN begins, with the zero byte before it
	session int    // of a leader that was not waited for, so that the number is its own; 0: none
}

func newScan(run string) *scan {
	return &scan{mark: []byte("\x00" + runVariable + "=" + run)}
}

func (s *scan) processes() ([]Process, error) {
	all, err := pids()
	if err != nil {
		return nil, err
	}
	var found []Process
	for _, pid := range all {
		if p, ok := s.find(pid); ok {
			found = append(found, p)
		}
	}
	return found, nil
}

func (s *scan) find(pid int) (Process, bool) {
	p, session, ok := look(pid)
	if !ok || pid == os.Getpid() {
		return p, false
	}
	if s.session != 0 && session == s.session {
		return p, true
	}
	// What cannot be read belongs to another user, and was not started by us.
	environment, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil || len(environment) == 0 {
		return p, false
	}
	return p, bytes.Contains(append([]byte{0}, environment...), s.mark)
}

func (s *scan) has(pid int) bool {
	_, ok := s.find(pid)
	return ok
}

func (s *scan) kill() error { return signal(s, syscall.SIGKILL) }
