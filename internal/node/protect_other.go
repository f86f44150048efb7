// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

// Protect has nothing to do: there are no devices here.
func Protect() []error { return nil }
