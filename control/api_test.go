// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// backend is a node of functions.
type backend struct {
	status Status
	act    func(context.Context, Action, func(Progress)) error
}

func (b *backend) Status() Status { return b.status }
func (b *backend) Act(ctx context.Context, a Action, progress func(Progress)) error {
	return b.act(ctx, a, progress)
}

// serve runs a server until the test ends, and returns its socket and what
// stops it.
func serve(t *testing.T, b *backend, events *Events) (path string, stop func()) {
	t.Helper()
	// Not t.TempDir, whose name may be too long for a socket.
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, "run", "twinbd.sock")
	listener, err := Listen(path, DefaultMode)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, listener, b, events, slog.New(slog.DiscardHandler)) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return path, stop
}

func TestStatus(t *testing.T) {
	want := Status{
		Cluster: "c", Node: "alpha", Peer: "beta", Version: "v1", Time: time.Unix(1, 0).UTC(),
		Services: []ServiceStatus{{
			Name: "s", State: Primary, Colour: Ready, UpToDate: true, Reason: "The peer follows.", Role: "primary", Epoch: 7,
			Peer: PeerStatus{Name: "beta", Connection: "connected", Since: time.Unix(1, 0).UTC(), State: Secondary},
			Volumes: []VolumeStatus{{
				Name: "v", Size: 1 << 40, Disk: "uptodate", Generation: "1f", DirtyBlocks: 1, DirtyBytes: 4096,
				Resync:   &ResyncStatus{Kind: "resync", Source: "alpha", Done: 1, Total: 2, Rate: 3, ETA: 4},
				Counters: VolumeCounters{Writes: 1 << 63},
			}},
		}},
	}
	path, _ := serve(t, &backend{status: want}, NewEvents(1))
	client := NewClient(path)
	defer client.Close()
	for range 2 { // the second time over the same connection
		got, err := client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(*got, want) {
			t.Errorf("got  %+v\nwant %+v", *got, want)
		}
	}
	if want.Service("s").Epoch != 7 || want.Service("t") != nil {
		t.Error("Service finds the wrong one")
	}
}

// The names that scripts rely on, of a status with everything set.
func TestStatusNamesAreStable(t *testing.T) {
	data, err := json.Marshal(Status{Services: []ServiceStatus{{
		Peer:    PeerStatus{Address: "a", Since: time.Unix(1, 0).UTC(), State: Wait, Problem: "p"},
		Volumes: []VolumeStatus{{Resync: &ResyncStatus{}, Export: "e", Device: "d", Problems: []Problem{{Hint: "h"}}}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	const golden = `{"cluster":"","node":"","peer":"","version":"","time":"0001-01-01T00:00:00Z","services":[` +
		`{"name":"","state":"","colour":"","uptodate":false,"reason":"","role":"","epoch":0,"maintenance":false,` +
		`"peer":{"name":"","connection":"","address":"a","since":"1970-01-01T00:00:01Z","state":"WAIT","problem":"p"},` +
		`"volumes":[{"name":"","size":0,"disk":"","diskPath":"","generation":"","dirtyBlocks":0,"dirtyBytes":0,` +
		`"resync":{"kind":"","source":"","done":0,"total":0,"rate":0,"eta":0},"export":"e","device":"d",` +
		`"counters":{"reads":0,"readBytes":0,"writes":0,"writeBytes":0,"flushes":0,"trims":0,"sentBytes":0,"receivedBytes":0,` +
		`"resyncedBytes":0,"intentMisses":0,"clientSessions":0},"problems":[{"message":"","hint":"h"}]}]}]}`
	if string(data) != golden {
		t.Errorf("got\n%s\nwant\n%s", data, golden)
	}
}

func TestAct(t *testing.T) {
	var got []Action
	b := &backend{act: func(_ context.Context, a Action, progress func(Progress)) error {
		got = append(got, a)
		switch a.Verb {
		case "verify":
			progress(Progress{Text: "read", Done: 1, Total: 2})
			progress(Progress{Text: "read", Done: 2, Total: 2})
			return nil
		case "prim":
			progress(Progress{Text: "ask"})
			return fmt.Errorf("prim: %w", &Refusal{Message: "beta is newer", Hint: "start beta"})
		}
		return ErrUnknownVerb
	}}
	path, _ := serve(t, b, NewEvents(1))
	client := NewClient(path)
	defer client.Close()

	var seen []Progress
	note := func(p Progress) { seen = append(seen, p) }
	if err := client.Act(t.Context(), Action{Verb: "verify", Service: "s", Volume: "v", Args: map[string]string{"repair": "true"}}, note); err != nil {
		t.Fatal(err)
	}
	err := client.Act(t.Context(), Action{Verb: "prim", Service: "s"}, note)
	if r, ok := err.(*Refusal); !ok || *r != (Refusal{"prim: beta is newer", "start beta"}) {
		t.Errorf("got %#v", err)
	}
	if err := client.Act(t.Context(), Action{Verb: "fly"}, nil); err == nil || err.Error() != ErrUnknownVerb.Error() {
		t.Errorf("got %v", err)
	}
	who := ""
	if runtime.GOOS == "linux" {
		if who = "root"; os.Getuid() != 0 {
			who = fmt.Sprintf("user %d", os.Getuid())
		}
	}
	wantActions := []Action{
		{Verb: "verify", Service: "s", Volume: "v", Args: map[string]string{"repair": "true"}, Who: who},
		{Verb: "prim", Service: "s", Who: who},
		{Verb: "fly", Who: who},
	}
	if !reflect.DeepEqual(got, wantActions) {
		t.Errorf("the node was asked %+v, want %+v", got, wantActions)
	}
	wantSeen := []Progress{{Text: "read", Done: 1, Total: 2}, {Text: "read", Done: 2, Total: 2}, {Text: "ask"}}
	if !reflect.DeepEqual(seen, wantSeen) {
		t.Errorf("progress %+v, want %+v", seen, wantSeen)
	}
}

// A client that goes away ends the action's context.
func TestActEndsWithItsClient(t *testing.T) {
	ended := make(chan struct{})
	b := &backend{act: func(ctx context.Context, _ Action, progress func(Progress)) error {
		progress(Progress{Text: "begun"})
		<-ctx.Done()
		close(ended)
		return ctx.Err()
	}}
	path, _ := serve(t, b, NewEvents(1))
	client := NewClient(path)
	defer client.Close()
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	if err := client.Act(ctx, Action{Verb: "verify"}, func(Progress) { cancel(cause) }); err != cause {
		t.Errorf("got %v, want %v", err, cause)
	}
	<-ended
}

// The one who asked for a stop hears that it was done, and one whose node dies
// hears that.
func TestActWhileStopping(t *testing.T) {
	stops := make(chan func(), 1)
	b := &backend{act: func(ctx context.Context, a Action, _ func(Progress)) error {
		go (<-stops)()
		<-ctx.Done()
		if a.Verb == "die" {
			panic(http.ErrAbortHandler)
		}
		return nil
	}}
	for verb, want := range map[string]string{"stop": "", "die": "the node stopped before it said how it went; hint: see `twinbd status` and its log"} {
		path, stop := serve(t, b, NewEvents(1))
		stops <- stop
		client := NewClient(path)
		err := client.Act(t.Context(), Action{Verb: verb}, nil)
		if want == "" && err != nil || want != "" && (err == nil || err.Error() != want) {
			t.Errorf("%s: got %v, want %q", verb, err, want)
		}
		client.Close()
	}
}

func TestEventsOverTheSocket(t *testing.T) {
	events := NewEvents(8)
	path, stop := serve(t, &backend{}, events)
	client := NewClient(path)
	defer client.Close()
	events.Add(Event{Kind: "state", Service: "s", Old: "WAIT", New: "PRIM", Reason: "The operator said so.", Who: "root"})
	events.Add(Event{Kind: "peer"})

	var kept []Event
	take := func(e Event) error { kept = append(kept, e); return nil }
	if err := client.Events(t.Context(), 0, false, take); err != nil {
		t.Fatal(err)
	}
	if len(kept) != 2 || kept[0].Reason != "The operator said so." || kept[1].Sequence != 2 {
		t.Errorf("kept events: %+v", kept)
	}

	var followed []uint64
	err := client.Events(t.Context(), 1, true, func(e Event) error {
		if followed = append(followed, e.Sequence); e.Sequence < 5 {
			events.Add(Event{Kind: "disk"})
		} else {
			go stop() // a node that stops ends its followers
		}
		return nil
	})
	if err != nil || !reflect.DeepEqual(followed, []uint64{2, 3, 4, 5}) {
		t.Errorf("followed %v, %v", followed, err)
	}
}

func TestBadRequests(t *testing.T) {
	b := &backend{act: func(context.Context, Action, func(Progress)) error {
		t.Error("a bad request reached the node")
		return nil
	}}
	path, _ := serve(t, b, NewEvents(1))
	client := NewClient(path)
	defer client.Close()
	for _, tt := range []struct{ method, path, body, want string }{
		{"GET", "nothing", "", "there is no GET /api/v1/nothing"},
		{"DELETE", "status", "", "there is no DELETE /api/v1/status"},
		{"POST", "s/prim", "", "the request is not understood: EOF"},
		{"POST", "s/prim", "[]", "the request is not understood: "},
		{"POST", "s/prim", `{"force":true}`, `the request is not understood: json: unknown field "force"`},
		{"POST", "s/prim", `{}{}`, "the request is more than one value"},
		{"POST", "s/prim", `{"volume":"` + strings.Repeat("v", maxBody) + `"}`, "the request is larger than 65536 bytes"},
		{"POST", "s/prim", `{"volume":"` + strings.Repeat("v", maxName+1) + `"}`, "a name is longer than 64 bytes"},
		{"POST", strings.Repeat("s", maxName+1) + "/prim", `{}`, "a name is longer than 64 bytes"},
		{"GET", "events?since=-1", "", "since is no sequence number"},
		{"GET", "events?follow=maybe", "", "follow is neither true nor false"},
	} {
		body, err := client.send(t.Context(), tt.method, tt.path, []byte(tt.body))
		if err == nil {
			body.Close()
		}
		if r, ok := err.(*Refusal); !ok || !strings.HasPrefix(r.Message, tt.want) {
			t.Errorf("%s %s: got %v, want %q", tt.method, tt.path, err, tt.want)
		}
	}
	if _, err := client.send(t.Context(), "GET", "status?"+strings.Repeat("x", 2*maxHeader), nil); err == nil {
		t.Error("a header of twice the limit is taken")
	}
}

func TestListen(t *testing.T) {
	path, stop := serve(t, &backend{}, NewEvents(1))
	if info, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != DefaultMode {
		t.Errorf("socket has mode %v, %v", info.Mode(), err)
	}
	_, err := Listen(path, DefaultMode)
	if err == nil || !strings.HasPrefix(err.Error(), "another twinbd runs as this node: it answers at "+path+"; hint: ") {
		t.Errorf("second node: %v", err)
	}
	if _, err := NewClient(path).Status(t.Context()); err != nil {
		t.Errorf("after the second try the first does not answer: %v", err)
	}
	stop()
	if _, err := os.Lstat(path); err == nil {
		t.Error("the socket is still there after the stop")
	}

	// A process that died leaves its socket.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	_, err = NewClient(path).Status(t.Context())
	if err == nil || !strings.HasPrefix(err.Error(), "no twinbd runs as this node: nobody answers at "+path+"; hint: ") {
		t.Errorf("ask a dead node: %v", err)
	}
	again, err := Listen(path, 0o600)
	if err != nil {
		t.Fatalf("replace the socket of a dead process: %v", err)
	}
	again.Close()

	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, DefaultMode); err == nil || !strings.Contains(err.Error(), "is in the way: it is no socket") {
		t.Errorf("over a file: %v", err)
	}
	if data, err := os.ReadFile(path); err != nil || string(data) != "mine" {
		t.Errorf("the file in the way is now %q, %v", data, err)
	}
}

func TestAskNobody(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{filepath.Join(dir, "none"), filepath.Join(dir, "no", "directory")} {
		client := NewClient(path)
		for what, err := range map[string]error{
			"status": second(client.Status(t.Context())),
			"act":    client.Act(t.Context(), Action{Verb: "prim"}, nil),
			"events": client.Events(t.Context(), 0, true, nil),
		} {
			if r, ok := err.(*Refusal); !ok || r.Hint == "" || !strings.HasPrefix(r.Message, "no twinbd runs as this node") {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
}

// A server that is not ours gets no trust.
func TestAskAnother(t *testing.T) {
	dir, err := os.MkdirTemp("", "control")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusTeapot)
		}
		io.WriteString(w, "hello")
	})}
	go server.Serve(listener)
	defer server.Close()
	client := NewClient(path)
	defer client.Close()
	if _, err := client.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "read status from "+path) {
		t.Errorf("status: %v", err)
	}
	if err := client.Act(t.Context(), Action{Verb: "prim"}, nil); err == nil || !strings.Contains(err.Error(), "it answered 418") {
		t.Errorf("act: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }
