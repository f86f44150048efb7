// SPDX-License-Identifier: Apache-2.0

package application

import (
	"fmt"
	"strings"
)

// Process is a process as an error or the log names it.
type Process struct {
	Pid   int
	Name  string
	State string // a letter of proc(5): R, S, D, …
}

func (p Process) String() string { return fmt.Sprintf("%s (%d)", p.Name, p.Pid) }

// list names at most a handful of processes.
func list(processes []Process) string {
	const limit = 8
	var names []string
	for i, p := range processes {
		if i == limit {
			names = append(names, fmt.Sprintf("and %d more", len(processes)-limit))
			break
		}
		names = append(names, p.String())
	}
	return strings.Join(names, ", ")
}

// undeadError says that SIGKILL was not enough: the processes wait for a device
// that does not answer.
type undeadError []Process

func (e undeadError) Error() string {
	return fmt.Sprintf("killed, but still there: %s; they hang in the kernel (state %s): reboot this node", list(e), e[0].State)
}
