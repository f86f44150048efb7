// SPDX-License-Identifier: Apache-2.0

package node

import "github.com/twinbd/twinbd/internal/config"

// A machine that runs out of memory writes its dirty pages to its disks. Where a
// disk is this process, which needs memory to write, each could wait for the other
// for ever. So what the process has touched stays in memory, none of its threads
// waits for pages to be written when it asks for more, and it is not what the
// kernel kills to get some. Commands of the service inherit none of that: see
// startChild in failover/application.

// NeedsProtection reports whether a volume's device may be this machine's disk.
func NeedsProtection(cfg *config.Config) bool { return anyService(hasDevice)(cfg) }
