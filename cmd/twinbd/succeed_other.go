// SPDX-License-Identifier: Apache-2.0

//go:build !unix

package main

import (
	"context"
	"errors"
	"os"
)

func hangups(context.Context) <-chan os.Signal { return nil }

func takeDescriptor(int) (*os.File, error) { return nil, errors.ErrUnsupported }

func become(string, []string, []int) error { return errors.ErrUnsupported }
