// SPDX-License-Identifier: Apache-2.0

package node

import (
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"

	"github.com/twinbd/twinbd/bitmap"
	"github.com/twinbd/twinbd/mirror"
)

// bootFile has a number that the kernel draws anew whenever the machine starts.
const bootFile = "/proc/sys/kernel/random/boot_id"

// thisBoot names this run of the machine; 0 where the system does not.
func thisBoot() uint64 {
	text, err := os.ReadFile(bootFile)
	if err != nil {
		return 0
	}
	id, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(string(text)), "-", ""))
	if err != nil || len(id) < 8 {
		return 0
	}
	return binary.BigEndian.Uint64(id)
}

// prove makes certain of what an earlier process of this run of the machine has
// acknowledged and left to the system's cache: it is on the disk, or nothing is
// believed of it (rule 22).
func (v *volume) prove(m *bitmap.Metadata) {
	if !mirror.Intact(&m.Header, v.service.node.boot) {
		return
	}
	if err := v.store.data.Sync(); err != nil {
		v.log.Warn("what an earlier process wrote is not certain to be on the disk", "error", err)
		m.Header.Boot = 0
	}
}
