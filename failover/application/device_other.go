// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package application

import "context"

// Device is a block device, as what processes use.
type Device string

// MountedAt cannot say.
func (d Device) MountedAt() (string, error) { return "", errLinuxOnly }

// Users finds nobody.
func (d Device) Users() string { return "" }

// Kill has nobody to end.
func (d Device) Kill(context.Context) error { return errLinuxOnly }
