// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/tls"
	"net"
	"testing"
	"time"
)

// Keys are pinned, so no machine's idea of the date keeps two from meeting.
func TestClocksYearsApart(t *testing.T) {
	dir := keyDir(t)
	server, client := load(t, dir, "beta").Server("alpha"), load(t, dir, "alpha").Client("beta")
	server.Time = func() time.Time { return time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC) }
	client.Time = func() time.Time { return time.Date(2061, 1, 1, 0, 0, 0, 0, time.UTC) }
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan error, 1)
	go func() { done <- tls.Server(a, server).HandshakeContext(t.Context()) }()
	if err := tls.Client(b, client).HandshakeContext(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
