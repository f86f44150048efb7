// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package demo

import "os/exec"

// detach has no equivalent here: the demo ends its processes when it ends.
func detach(*exec.Cmd, bool) {}
