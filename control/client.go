// SPDX-License-Identifier: Apache-2.0

package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"syscall"
	"time"
)

// statusTimeout bounds the calls that a node answers promptly.
const statusTimeout = 10 * time.Second

// errStopped is the answer of a node that ended before it gave one.
var errStopped = &Refusal{Message: "the node stopped before it said how it went", Hint: "see `twinbd status` and its log"}

// Client asks a node of this machine. Its methods may overlap.
type Client struct {
	path string
	http *http.Client
}

// NewClient asks the node that listens at path. It connects at the first call.
func NewClient(path string) *Client {
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", path)
	}
	return &Client{path: path, http: &http.Client{Transport: &http.Transport{
		DialContext:        dial,
		DisableCompression: true,
		MaxIdleConns:       1,
		IdleConnTimeout:    idleTimeout / 2, // before the server does
	}}}
}

// Close drops idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Status asks for the node's status.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	body, err := c.send(ctx, http.MethodGet, "status", nil)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	var status Status
	if err := json.NewDecoder(body).Decode(&status); err != nil {
		return nil, fmt.Errorf("read status from %s: %w", c.path, err)
	}
	return &status, nil
}

// Act asks the node to act, gives its progress to progress, which may be nil,
// and returns when it has said the last word. What the node refuses is a
// *Refusal. Action.Who is not sent: the node asks the kernel.
func (c *Client) Act(ctx context.Context, action Action, progress func(Progress)) error {
	service := action.Service
	if service == "" {
		service = NodeWide
	}
	request, err := json.Marshal(request{Volume: action.Volume, Args: action.Args})
	if err != nil {
		return fmt.Errorf("write request: %w", err)
	}
	body, err := c.send(ctx, http.MethodPost, url.PathEscape(service)+"/"+url.PathEscape(action.Verb), request)
	if err != nil {
		return err
	}
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var line Line
		switch err := decoder.Decode(&line); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
			return errStopped
		case err != nil:
			return fmt.Errorf("read answer from %s: %w", c.path, err)
		case line.Result != nil:
			return line.Result.err()
		case line.Progress != nil && progress != nil:
			progress(*line.Progress)
		}
	}
}

// Events gives the node's events after a sequence number to take, the oldest
// first; with follow also those to come, until ctx ends, the node stops or take
// returns an error, which is returned.
func (c *Client) Events(ctx context.Context, after uint64, follow bool, take func(Event) error) error {
	query := url.Values{"since": {strconv.FormatUint(after, 10)}, "follow": {strconv.FormatBool(follow)}}
	body, err := c.send(ctx, http.MethodGet, "events?"+query.Encode(), nil)
	if err != nil {
		return err
	}
	defer body.Close()
	decoder := json.NewDecoder(body)
	for {
		var event Event
		switch err := decoder.Decode(&event); {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read events from %s: %w", c.path, err)
		}
		if err := take(event); err != nil {
			return err
		}
	}
}

// send returns the body of an answer that is not an error.
func (c *Client) send(ctx context.Context, method, path string, body []byte) (io.ReadCloser, error) {
	// The host is never looked up: the socket's path decides.
	request, err := http.NewRequestWithContext(ctx, method, "http://twinbd/api/v1/"+path, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("write request: %w", err)
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer.Body, nil
	}
	defer answer.Body.Close()
	var line Line
	if err := json.NewDecoder(answer.Body).Decode(&line); err != nil || line.Result == nil || line.Result.OK {
		return nil, fmt.Errorf("ask %s: it answered %s", c.path, answer.Status)
	}
	return nil, line.Result.err()
}

// explain makes something that a person can act on of the error of a call.
func (c *Client) explain(ctx context.Context, err error) error {
	switch {
	case context.Cause(ctx) != nil && ctx.Err() == context.Canceled:
		return context.Cause(ctx)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return &Refusal{
			Message: fmt.Sprintf("no twinbd runs as this node: nobody answers at %s", c.path),
			Hint:    "start it with `twinbd serve`, or give --node NAME for the other node",
		}
	case errors.Is(err, io.EOF), errors.Is(err, syscall.ECONNRESET):
		return errStopped
	case errors.Is(err, fs.ErrPermission):
		return &Refusal{Message: fmt.Sprintf("open %s: permission denied", c.path), Hint: "run the command as root"}
	case errors.Is(err, context.DeadlineExceeded):
		return &Refusal{Message: fmt.Sprintf("the node at %s does not answer", c.path), Hint: "see its log"}
	}
	// The transport's own words name a URL that means nothing to anybody.
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err
	}
	return fmt.Errorf("ask the node at %s: %w", c.path, err)
}
