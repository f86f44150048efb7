// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package application

import "context"

func isMounted(string) (bool, error) { return false, errLinuxOnly }

func (m Mount) look() (occupation, string, error) { return free, "", errLinuxOnly }
func (m Mount) users() []Process                  { return nil }
func (m Mount) kill(context.Context) error        { return errLinuxOnly }
