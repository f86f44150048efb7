// SPDX-License-Identifier: Apache-2.0

package crowd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"time"
)

// The pauses after an error of a listener, such as too many open files: it passes,
// and ends nothing.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
)

// Accept gives each connection of a listener to serve, which must not wait, until
// ctx ends; that closes the listener. The error is nil then. A listener that closes
// by itself is an error, and nothing else is.
func Accept(ctx context.Context, l net.Listener, log *slog.Logger, serve func(net.Conn)) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	pause := firstPause
	for {
		conn, err := l.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept: %w", err)
		case err != nil:
			log.Warn("accept failed", "address", l.Addr(), "error", err)
			rest(ctx, pause)
			pause = min(2*pause, longestPause)
		default:
			pause = firstPause
			serve(conn)
		}
	}
}

// rest waits, but not beyond the end of ctx.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
