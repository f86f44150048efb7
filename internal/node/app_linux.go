// SPDX-License-Identifier: Apache-2.0

package node

import "github.com/twinbd/twinbd/failover/application"

// units are those of the system's service manager.
func units() application.Units { return application.NewSystemd() }
