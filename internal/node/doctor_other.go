// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package node

import "errors"

func fileSystemOf(string) (fileSystem, error)   { return fileSystem{}, errors.ErrUnsupported }
func writeCacheOf(string) (string, error)       { return "", errors.ErrUnsupported }
func ownCapabilities() (uint64, error)          { return 0, errors.ErrUnsupported }
func moduleOf(name string) (moduleState, error) { return "", errors.ErrUnsupported }
