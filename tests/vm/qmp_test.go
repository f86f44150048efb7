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
	if err := q.conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if err := json.NewEncoder(q.conn).Encode(map[string]string{"execute": command}); err != nil {
		return err
	}
	for {
		var answer struct {
			Event string
			Error struct{ Desc string }
		}
		if err := q.in.Decode(&answer); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		switch {
		case answer.Event != "": // of something else
		case answer.Error.Desc != "":
			return errors.New(command + ": " + answer.Error.Desc)
		default:
			return nil
		}
	}
}
