// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import "github.com/twinbd/twinbd/failover/application"

// units: there is no service manager that could be asked.
func units() application.Units { return nil }
