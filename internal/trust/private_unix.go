// SPDX-License-Identifier: Apache-2.0

//go:build unix

package trust

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// checkPrivate refuses a private key that others can read, or that somebody
// else than root or this process' user owns and so could exchange.
func checkPrivate(file string, info fs.FileInfo) error {
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s can be read by others (mode %#o); hint: chmod 600 %s", file, mode, file)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return nil
	}
	if self := os.Geteuid(); int(stat.Uid) != self && stat.Uid != 0 {
		return fmt.Errorf("%s belongs to user %d, not to root or to user %d; hint: chown %d %s", file, stat.Uid, self, self, file)
	}
	return nil
}
