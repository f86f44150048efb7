// SPDX-License-Identifier: Apache-2.0

//go:build linux && !cgo

package nbd

import (
	"testing"

	"github.com/pojntfx/go-nbd/pkg/ioctl"
)

// The numbers are go-nbd's, where that has them without a C compiler.
func TestIoctlNumbersOfOthers(t *testing.T) {
	for _, pair := range [][2]uint{
		{ioctlSetSocket, ioctl.NEGOTIATION_IOCTL_SET_SOCK},
		{ioctlSetBlockSize, ioctl.NEGOTIATION_IOCTL_SET_BLOCKSIZE},
		{ioctlDoIt, ioctl.NEGOTIATION_IOCTL_DO_IT},
		{ioctlClearSocket, ioctl.TRANSMISSION_IOCTL_CLEAR_SOCK},
		{ioctlClearQueue, ioctl.TRANSMISSION_IOCTL_CLEAR_QUE},
		{ioctlSetSizeBlocks, ioctl.NEGOTIATION_IOCTL_SET_SIZE_BLOCKS},
		{ioctlSetTimeout, ioctl.NEGOTIATION_IOCTL_SET_TIMEOUT},
	} {
		if pair[0] != pair[1] || ioctlPlain != 0 {
			t.Errorf("%#x, and go-nbd has %#x", pair[0], pair[1])
		}
	}
}
