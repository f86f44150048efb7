// SPDX-License-Identifier: Apache-2.0

package application

import (
	"context"
	"errors"
	"strings"
)

// errNoUnits says that unit:NAME was used where nothing can act on it.
var errNoUnits = errors.New("there is no service manager here; hint: write a command instead of unit:NAME")

// Units starts and stops units of the system's service manager by name, ending
// included. Calls may overlap; each ends soon after its context does.
type Units interface {
	// Start returns when the unit is up, as far as its type can tell. When ctx
	// ends first, the start is called off.
	Start(ctx context.Context, unit string) error

	// Stop returns when the unit is down. One that is not up is no error.
	Stop(ctx context.Context, unit string) error

	// Kill is Stop with SIGKILL for all processes of the unit.
	Kill(ctx context.Context, unit string) error

	// Active returns nil while the unit is up.
	Active(ctx context.Context, unit string) error
}

// unitOf takes an entry of the form unit:NAME apart. As for systemctl, a name
// without a suffix is a service's.
func unitOf(entry string) (unit string, ok bool) {
	unit, ok = strings.CutPrefix(strings.TrimSpace(entry), "unit:")
	unit = strings.TrimSpace(unit)
	if ok && !strings.Contains(unit, ".") {
		unit += ".service"
	}
	return unit, ok
}
