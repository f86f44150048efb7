// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// dribble sends each byte on its own, so that every record arrives in parts,
// and keeps the last bytes that it received.
type dribble struct {
	net.Conn
	mu   sync.Mutex
	seen []byte
}

func (d *dribble) Write(p []byte) (int, error) {
	for i := range p {
		if _, err := d.Conn.Write(p[i : i+1]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

func (d *dribble) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p)
	d.mu.Lock()
	d.seen = append(d.seen, p[:n]...)
	d.mu.Unlock()
	return n, err
}

// A session that is plain first and then upgraded, as with NBD's STARTTLS: the
// shim keeps nothing back, and a record that arrives byte by byte is kept over
// many turns.
func TestUpgradeAndPartialRecords(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			l := start(t, k.o, &idleCore{})
			c, s := connect(t, "tcp", 0)
			wire := &dribble{Conn: c}
			shim := Wrap(s)
			upgraded := make(chan net.Conn, 1)
			go func() {
				ask := make([]byte, 8)
				if _, err := io.ReadFull(shim, ask); err != nil || string(ask) != "STARTTLS" {
					t.Errorf("asked %q, %v", ask, err)
				}
				if _, err := shim.Write([]byte("ACK")); err != nil {
					t.Error(err)
				}
				server := tls.Server(shim, testConfig(t))
				if err := server.Handshake(); err != nil {
					t.Error(err)
				}
				upgraded <- server
			}()
			if _, err := wire.Write([]byte("STARTTLS")); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, make([]byte, 3)); err != nil {
				t.Fatal(err)
			}
			config := testConfig(t)
			config.MaxVersion = tls.VersionTLS12 // where an alert can be seen on the wire
			client := tls.Client(wire, config)
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			// More than one record, before the loop has the connection.
			if _, err := client.Write([]byte("early ")); err != nil {
				t.Fatal(err)
			}
			e := newEcho(1, 1<<16)
			var p *Port
			conn := within(t, "upgrade", upgraded)
			on(t, l, func() {
				var err error
				if p, err = l.Add(conn, e); err != nil {
					t.Error(err)
				}
			})
			if _, err := client.Write(bytes.Repeat([]byte("late "), 100)); err != nil {
				t.Fatal(err)
			}
			want := "early " + strings.Repeat("late ", 100)
			got := make([]byte, len(want))
			if _, err := io.ReadFull(client, got); err != nil || string(got) != want {
				t.Fatalf("got %q, %v", got, err)
			}
			on(t, l, p.Close)
			if _, err := io.ReadAll(client); err != nil {
				t.Error(err)
			}
			// The last record is an alert (content type 21): close_notify.
			types := recordTypes(wire.seen)
			if len(types) == 0 || types[len(types)-1] != 21 {
				t.Errorf("records of types %v, want an alert at the end", types)
			}
		})
	}
}

// recordTypes lists the content types of the TLS records in b (RFC 5246 6.2.1).
func recordTypes(b []byte) (types []byte) {
	for len(b) >= 5 {
		types = append(types, b[0])
		n := 5 + int(b[3])<<8 + int(b[4])
		if n > len(b) {
			return nil
		}
		b = b[n:]
	}
	return types
}

// Bytes that are no record end the connection with an error, and reach nobody.
func TestForgedRecord(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			l := start(t, k.o, &idleCore{})
			c, s := connect(t, "tcp", 0)
			config := testConfig(t)
			done := make(chan net.Conn, 1)
			go func() {
				conn, err := Secure(context.Background(), s, config, true)
				if err != nil {
					t.Error(err)
				}
				done <- conn
			}()
			if err := tls.Client(c, config).Handshake(); err != nil {
				t.Fatal(err)
			}
			e := newFixed("")
			e.turns = func(n int) error { t.Errorf("received %d forged bytes", n); return nil }
			add(t, l, within(t, "handshake", done), e)
			forged := append([]byte{23, 3, 3, 0, 64}, make([]byte, 64)...)
			if _, err := c.Write(forged); err != nil {
				t.Fatal(err)
			}
			if err := within(t, "end", e.closed); err == nil {
				t.Error("told of a good end")
			}
		})
	}
}

// A handshake that does not come ends with its context, and the connection
// with it.
func TestSecureGivesUp(t *testing.T) {
	c, s := connect(t, "tcp", 0)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		_, err := Secure(ctx, s, testConfig(t), true)
		done <- err
	}()
	cancel()
	if err := within(t, "end of the handshake", done); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("the connection is still open")
	}
}

// A side that makes TLS answer without ever reading cannot fill the memory.
func TestCipherIsBounded(t *testing.T) {
	s := Wrap(nil)
	s.raw = &socketThatIsFull{}
	var err error
	n := 0
	for ; err == nil; n++ {
		_, err = s.Write(make([]byte, 1000))
	}
	if len(s.out) > maxCipher || n < 1000 {
		t.Errorf("%d bytes after %d writes", len(s.out), n)
	}
}

type socketThatIsFull struct{ link }

func (*socketThatIsFull) write([][]byte) (int, error) { return 0, errAgain }

// Another implementation's key updates, which demand an answer each, and its
// session tickets do not disturb the stream.
func TestKeyUpdate(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("openssl is not installed")
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			l := start(t, k.o, &idleCore{})
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, openssl, "s_client", "-connect", ln.Addr().String(), "-tls1_3")
			in, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd.Stderr = cmd.Stdout // where it reports its commands
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Wait()
			defer cancel()
			raw, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			conn, err := Secure(ctx, raw, testConfig(t), true)
			if err != nil {
				t.Fatal(err)
			}
			e := newEcho(1, 1<<16)
			add(t, l, conn, e)

			seen := make(chan string, 1000)
			go func() {
				defer close(seen)
				var all []byte
				b := make([]byte, 4096)
				for {
					n, err := out.Read(b)
					all = append(all, b[:n]...)
					seen <- string(all)
					if err != nil {
						return
					}
				}
			}()
			for i := range 3 {
				// s_client takes a line that begins with Q, R or K as a command;
				// K sends a key update that asks for another.
				word := "w" + rand.Text()
				say(t, in, word+"\n")
				await(t, seen, word, 1)
				say(t, in, "K\n")
				await(t, seen, "KEYUPDATE", i+1)
			}
		})
	}
}

func say(t *testing.T, to io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(to, s); err != nil {
		t.Fatal(err)
	}
}

// await waits until all output so far has s n times.
func await(t *testing.T, outputs <-chan string, s string, n int) {
	t.Helper()
	var last string
	for last = range outputs {
		if strings.Count(last, s) >= n {
			return
		}
	}
	t.Fatalf("no %s in %q", s, last)
}
