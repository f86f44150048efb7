// SPDX-License-Identifier: Apache-2.0

package crowd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// Leaving is how many may be on their way out, beside those who are in a List.
const Leaving = 32

// The pauses after an error of a listener, such as too many open files: it passes,
// and ends nothing.
const (
	firstPause   = 5 * time.Millisecond
	longestPause = time.Second
)

// Accept gives each connection of a listener to serve, on a goroutine of its own,
// until ctx ends; that closes the listener. It returns when all of serve has
// returned; the error is nil then. A listener that closes by itself is an error,
// and nothing else is.
//
// So many are served at once, and more wait to be accepted. It is to be more than a
// List lets be there: who was sent away holds his descriptor until his goroutine
// has noticed, and on a busy machine connections come quicker than that.
func Accept(ctx context.Context, l net.Listener, log *slog.Logger, most int, serve func(net.Conn)) error {
	defer context.AfterFunc(ctx, func() { l.Close() })()
	var serving sync.WaitGroup
	defer serving.Wait()
	places := make(chan struct{}, most)
	pause := firstPause
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
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
			<-places
			rest(ctx, pause)
			pause = min(2*pause, longestPause)
		default:
			pause = firstPause
			serving.Go(func() {
				defer func() { <-places }()
				serve(conn)
			})
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
