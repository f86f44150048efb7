// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"unicode/utf8"
)

var (
	errMalformed = &Refusal{ReplyInvalid, "option is malformed"}
	errNoData    = &Refusal{ReplyInvalid, "option takes no data"}
	errTooBig    = &Refusal{ReplyTooBig, "option has too much data"}
)

// option answers one option. over says that transmission begins. An error
// ends the connection: the client broke the protocol, or asked for something
// that cannot be refused in any other way.
func (h *handshake) option(ctx context.Context, id uint32, data []byte) (over bool, err error) {
	switch {
	case !h.fixed && id != optExportName:
		return false, fmt.Errorf("option %d from a client without fixed newstyle", id)
	case id == optAbort:
		return false, h.abort(id)
	case id == optExportName:
		return true, h.exportName(data)
	case id == optStartTLS:
		return false, h.startTLS(ctx, id, data)
	case h.cfg.ForceTLS && !h.secure:
		h.refuse(id, &Refusal{ReplyTLSRequired, "this server speaks only TLS here"})
		return false, nil
	case data == nil:
		h.refuse(id, errTooBig)
		return false, nil
	}
	switch id {
	case optList:
		err = h.list(id, data)
	case optInfo:
		_, err = h.info(id, data)
	case optGo:
		var e Export
		if e, err = h.info(id, data); err == nil {
			h.export, over = e, true
		}
	case optStructured:
		err = h.structuredReply(id, data)
	case optListContext:
		err = h.listContexts(id, data)
	case optSetContext:
		err = h.setContexts(id, data)
	default:
		err = &Refusal{Reply: ReplyUnsupported}
	}
	if err != nil {
		h.refuse(id, err)
	}
	return over, nil
}

// abort says goodbye. The client need not wait for it.
func (h *handshake) abort(id uint32) error {
	h.respond(id, repAck)
	_ = h.flush()
	return ErrAborted
}

// exportName is the old way into transmission: it knows no refusal.
func (h *handshake) exportName(data []byte) error {
	name, err := parseName(data)
	switch {
	case h.cfg.ForceTLS && !h.secure:
		return errors.New("client asked for an export before starting TLS")
	case data == nil:
		return errTooBig
	case err != nil:
		return err
	}
	if h.export, err = h.lookup(name); err != nil {
		return fmt.Errorf("export %.64q: %w", name, err)
	}
	h.reply = binary.BigEndian.AppendUint64(h.reply, uint64(h.export.Size))
	h.reply = binary.BigEndian.AppendUint16(h.reply, h.export.flags(h.structured))
	if !h.noZeroes {
		h.reply = append(h.reply, make([]byte, legacyZeroes)...)
	}
	return nil
}

// startTLS upgrades the connection; from then on nothing holds that was agreed
// in the clear.
func (h *handshake) startTLS(ctx context.Context, id uint32, data []byte) error {
	switch {
	case h.cfg.TLS == nil:
		h.refuse(id, &Refusal{ReplyPolicy, "this server has no TLS here"})
		return nil
	case h.secure:
		h.refuse(id, &Refusal{ReplyInvalid, "TLS is already on"})
		return nil
	case data == nil || len(data) > 0:
		h.refuse(id, errNoData)
		return nil
	}
	h.respond(id, repAck)
	if err := h.flush(); err != nil {
		return err
	}
	conn := tls.Server(h.conn, h.cfg.TLS)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("start TLS: %w", err)
	}
	h.conn, h.secure = conn, true
	h.structured, h.contexts, h.contextsFor = false, 0, ""
	return nil
}

// list names all exports, also those that this node refuses to serve now, and
// describes those that it serves.
func (h *handshake) list(id uint32, data []byte) error {
	if len(data) > 0 {
		return errNoData
	}
	for _, name := range h.cfg.Exports.List() {
		e, _ := h.lookup(name)
		h.respond(id, repServer, binary.BigEndian.AppendUint32(nil, uint32(len(name))), []byte(name), []byte(e.Description))
	}
	h.respond(id, repAck)
	return nil
}

func (h *handshake) structuredReply(id uint32, data []byte) error {
	if len(data) > 0 {
		return errNoData
	}
	h.structured = true
	h.respond(id, repAck)
	return nil
}

// info answers INFO and GO: what the client asks about an export, and always
// its size and flags.
func (h *handshake) info(id uint32, data []byte) (Export, error) {
	rest := cursor{data}
	name, ok := rest.name()
	if !ok {
		return Export{}, errMalformed
	}
	count, ok := rest.uint16()
	if !ok || len(rest.b) != 2*int(count) {
		return Export{}, errMalformed
	}
	e, err := h.lookup(name)
	if err != nil {
		return Export{}, err
	}
	b := binary.BigEndian.AppendUint16(nil, infoExport)
	b = binary.BigEndian.AppendUint64(b, uint64(e.Size))
	h.respond(id, repInfo, binary.BigEndian.AppendUint16(b, e.flags(h.structured)))
	var seen [infoBlockSize + 1]bool
	for range count {
		kind, _ := rest.uint16()
		if kind > infoBlockSize || seen[kind] {
			continue
		}
		seen[kind] = true
		b := binary.BigEndian.AppendUint16(nil, kind)
		switch {
		case kind == infoName:
			h.respond(id, repInfo, b, []byte(e.Name))
		case kind == infoDescription && e.Description != "":
			h.respond(id, repInfo, b, []byte(e.Description))
		case kind == infoBlockSize:
			b = binary.BigEndian.AppendUint32(b, e.Minimum)
			b = binary.BigEndian.AppendUint32(b, e.Preferred)
			h.respond(id, repInfo, binary.BigEndian.AppendUint32(b, e.Maximum))
		}
	}
	h.respond(id, repAck)
	return e, nil
}

func (h *handshake) lookup(name string) (Export, error) {
	e, err := h.cfg.Exports.Lookup(name)
	if err == nil {
		e, err = e.check()
	}
	if err != nil {
		return Export{}, err
	}
	return e, nil
}

// parseName checks a string of the protocol: UTF-8 without NUL, not too long.
func parseName(b []byte) (string, error) {
	if len(b) > maxString || !utf8.Valid(b) {
		return "", errMalformed
	}
	for _, c := range b {
		if c == 0 {
			return "", errMalformed
		}
	}
	return string(b), nil
}

// cursor takes fields off the front of an option's data.
type cursor struct{ b []byte }

func (c *cursor) uint16() (uint16, bool) {
	if len(c.b) < 2 {
		return 0, false
	}
	v := binary.BigEndian.Uint16(c.b)
	c.b = c.b[2:]
	return v, true
}

func (c *cursor) uint32() (uint32, bool) {
	if len(c.b) < 4 {
		return 0, false
	}
	v := binary.BigEndian.Uint32(c.b)
	c.b = c.b[4:]
	return v, true
}

// name takes a string with its length before it.
func (c *cursor) name() (string, bool) {
	n, ok := c.uint32()
	if !ok || uint64(n) > uint64(len(c.b)) {
		return "", false
	}
	s, err := parseName(c.b[:n])
	c.b = c.b[n:]
	return s, err == nil
}
