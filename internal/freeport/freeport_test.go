// SPDX-License-Identifier: Apache-2.0

package freeport

import (
	"fmt"
	"net"
	"slices"
	"testing"
)

func TestFind(t *testing.T) {
	ports, err := Find(50)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(ports)
	if n := len(slices.Compact(slices.Clone(ports))); n != 50 || ports[0] < lowest || ports[49] >= lowest+span {
		t.Errorf("%d different ports: %v", n, ports)
	}
	for _, port := range ports[:5] {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			t.Errorf("nobody holds it: %v", err)
			continue
		}
		l.Close()
	}
}
