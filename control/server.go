// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"
)

// stopTimeout is how long answers under way may take when the server stops, so
// that the one who asked for the stop hears that it was done.
const stopTimeout = 2 * time.Second

// Serve answers on a listener from Listen until ctx ends, and then closes it.
// Streams end with ctx; the error is nil then.
func Serve(ctx context.Context, listener net.Listener, backend Backend, events *Events, log *slog.Logger) error {
	here := newAttendance()
	server := &http.Server{
		Handler:           newHandler(backend, events, whoAsked, here),
		ConnState:         here.noticed,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withPeer,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: readTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	serving, done := context.WithCancel(ctx)
	defer done()
	go func() {
		defer close(stopped)
		<-serving.Done()
		// ctx is over; what is left gets a time of its own.
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			server.Close()
		}
	}()
	err := server.Serve(listener)
	done()
	<-stopped
	if ctx.Err() != nil && errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve control socket: %w", err)
}

// peerKey is under what a connection's context knows who connected.
type peerKey struct{}

func withPeer(ctx context.Context, conn net.Conn) context.Context {
	return context.WithValue(context.WithValue(ctx, connKey{}, conn), peerKey{}, peerOf(conn))
}

func whoAsked(r *http.Request) string {
	who, _ := r.Context().Value(peerKey{}).(string)
	return who
}
