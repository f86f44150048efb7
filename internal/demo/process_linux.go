// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"os/exec"
	"syscall"
)

// detach keeps an interrupt at the terminal away from a process, so that the
// demo can end it in order. Unless it is to outlive the demo, the kernel ends
// it when the demo is killed.
func detach(cmd *exec.Cmd, outlive bool) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !outlive {
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
}
