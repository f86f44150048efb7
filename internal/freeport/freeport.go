// SPDX-License-Identifier: Apache-2.0

package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
)

// The ports lie below those that systems give to outgoing connections, so that
// none of these takes the port of a process that has not begun, or is dead for
// the moment.
const lowest, span = 15_000, 16_000

// Find returns different ports on which nobody listens now. Nothing holds them
// afterwards; they are chosen at random, so that two who look at the same time
// hardly find the same.
func Find(count int) ([]int, error) {
	var ports []int
	var err error
	for range 100 * count {
		port := lowest + rand.IntN(span)
		var l net.Listener
		if l, err = net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port)); err != nil {
			continue // somebody has it
		}
		defer l.Close() // all are held until the last is found, so that none comes twice
		if ports = append(ports, port); len(ports) == count {
			return ports, nil
		}
	}
	return nil, fmt.Errorf("find a free port: %w", err)
}
