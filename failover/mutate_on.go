// SPDX-License-Identifier: Apache-2.0

//go:build mutation

package failover

import "slices"

// mutations are the rules that are left out.
var mutations []string

func mutated(rule string) bool { return mutations != nil && slices.Contains(mutations, rule) }
