// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// monitor is QEMU's control socket (QMP).
type monitor struct {
	conn net.Conn
	in   *json.Decoder
}

func newMonitor(conn net.Conn) (*monitor, error) {
	q := &monitor{conn, json.NewDecoder(conn)}
	var greeting json.RawMessage
	if err := q.in.Decode(&greeting); err != nil {
		return nil, fmt.Errorf("read QEMU's greeting: %w", err)
	}
	return q, q.do("qmp_capabilities")
}

// do carries out a command without arguments.
func (q *monitor) do(command string) error {
	_, err := q.execute(command, nil)
	return err
}

// show is what a command for humans prints.
func (q *monitor) show(command string) string {
	answer, err := q.execute("human-monitor-command", map[string]string{"command-line": command})
	if err != nil {
		return err.Error()
	}
	var text string
	if err := json.Unmarshal(answer, &text); err != nil {
		return err.Error()
	}
	return text
}

func (q *monitor) execute(command string, arguments map[string]string) (json.RawMessage, error) {
	if err := q.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	request := map[string]any{"execute": command}
	if arguments != nil {
		request["arguments"] = arguments
	}
	if err := json.NewEncoder(q.conn).Encode(request); err != nil {
		return nil, err
	}
	for {
		var answer struct {
			Event  string
			Return json.RawMessage
			Error  struct{ Desc string }
		}
		if err := q.in.Decode(&answer); err != nil {
			return nil, fmt.Errorf("%s: %w", command, err)
		}
		switch {
		case answer.Event != "": // of something else
		case answer.Error.Desc != "":
			return nil, errors.New(command + ": " + answer.Error.Desc)
		default:
			return answer.Return, nil
		}
	}
}
