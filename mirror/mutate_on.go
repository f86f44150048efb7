// SPDX-License-Identifier: Apache-2.0

//go:build mutation

package mirror

// mutation is the rule that is left out.
var mutation string

func mutated(rule string) bool { return mutation == rule }
