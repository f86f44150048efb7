// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import (
	"errors"
	"syscall"
)

func freebind(string, string, syscall.RawConn) error {
	return errors.New("an export on a virtual address needs Linux; hint: export on an address of this machine")
}
