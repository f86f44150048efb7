// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package block

import "errors"

// errNoDevices is the answer to a disk that is no file.
var errNoDevices = &hintError{errors.New("not a regular file, and only Linux can use a block device"), "use a file, see `twinbd create`"}
