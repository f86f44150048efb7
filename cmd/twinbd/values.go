// SPDX-License-Identifier: Apache-2.0

package main

import (
	"time"

	"github.com/spf13/pflag"

	"github.com/twinbd/twinbd/internal/config"
)

// sizeValue is a flag that takes sizes as the configuration does: 10GiB.
type sizeValue int64

func (v *sizeValue) String() string { return config.FormatSize(int64(*v)) }
func (v *sizeValue) Type() string   { return "size" }
func (v *sizeValue) Set(text string) error {
	size, err := config.ParseSize(text)
	if err == nil {
		*v = sizeValue(size)
	}
	return err
}

// durationValue is a flag that takes times as the configuration does: 250ms.
type durationValue time.Duration

func (v *durationValue) String() string { return config.FormatDuration(time.Duration(*v)) }
func (v *durationValue) Type() string   { return "duration" }
func (v *durationValue) Set(text string) error {
	d, err := config.ParseDuration(text)
	if err == nil {
		*v = durationValue(d)
	}
	return err
}

// sizeVar defines a flag of bytes.
func sizeVar(flags *pflag.FlagSet, p *int64, name string, value int64, usage string) {
	*p = value
	flags.Var((*sizeValue)(p), name, usage)
}

// durationVar defines a flag of time.
func durationVar(flags *pflag.FlagSet, p *time.Duration, name string, value time.Duration, usage string) {
	*p = value
	flags.Var((*durationValue)(p), name, usage)
}
