// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package vip

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"time"
)

// kernel is one without interfaces: New refuses addresses, so that nothing is
// ever asked of it but to list them.
type kernel struct{}

var _ network = kernel{}

var errUnsupported = fmt.Errorf("virtual addresses on %s: %w", runtime.GOOS, errors.ErrUnsupported)

func (kernel) devices() ([]device, error)                             { return nil, nil }
func (kernel) assign(device, netip.Prefix, time.Duration, bool) error { return errUnsupported }
func (kernel) remove(device, netip.Prefix) error                      { return errUnsupported }
func (kernel) reset([]netip.Addr) (int, error)                        { return 0, errUnsupported }
func (kernel) open(device, protocol) (socket, error)                  { return nil, errUnsupported }
func (kernel) changes() (io.ReadCloser, error)                        { return nil, errUnsupported }
func (kernel) uptime() time.Duration                                  { return 0 }
