// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
)

// defaultPort is the one that IANA gave to NBD.
const defaultPort = "10809"

// Dial connects to the export that a URI names and makes the handshake:
//
//	nbd://host[:port]/[name]            TCP
//	nbd+unix:///[name]?socket=PATH      Unix socket
//	nbds://…, nbds+unix://…             the same with TLS, by secure or, where it is nil, by a default one
//
// The URI's host, also that of a nbds+unix one, is the name that the server's
// certificate must have, unless secure says another.
// ctx bounds the connecting and the handshake only.
func Dial(ctx context.Context, uri string, secure *tls.Config) (*Client, error) {
	network, address, host, name, encrypted, err := parseURI(uri)
	if err != nil {
		return nil, err
	}
	switch {
	case !encrypted:
		secure = nil
	case secure == nil:
		secure = &tls.Config{ServerName: host}
	case secure.ServerName == "" && host != "":
		secure = secure.Clone()
		secure.ServerName = host
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, network, address)
	if err != nil {
		return nil, fmt.Errorf("connect: %w", err)
	}
	return NewClient(ctx, conn, name, secure)
}

// parseURI takes a URI apart, as doc/uri.md beside the specification has it.
func parseURI(uri string) (network, address, host, name string, encrypted bool, err error) {
	u, err := url.Parse(uri)
	if err != nil {
		return "", "", "", "", false, fmt.Errorf("parse URI: %w", err)
	}
	name = strings.TrimPrefix(u.Path, "/")
	encrypted = strings.HasPrefix(u.Scheme, "nbds")
	switch u.Scheme {
	case "nbd", "nbds":
		port := u.Port()
		if port == "" {
			port = defaultPort
		}
		host = u.Hostname()
		if host == "" {
			return "", "", "", "", false, fmt.Errorf("URI %q names no host: write nbd://HOST/NAME", uri)
		}
		return "tcp", net.JoinHostPort(host, port), host, name, encrypted, nil
	case "nbd+unix", "nbds+unix":
		path := u.Query().Get("socket")
		if path == "" {
			return "", "", "", "", false, fmt.Errorf("URI %q names no socket: write nbd+unix:///NAME?socket=PATH", uri)
		}
		return "unix", path, u.Hostname(), name, encrypted, nil
	}
	return "", "", "", "", false, fmt.Errorf("URI %q is not for NBD: it begins with nbd://, nbds://, nbd+unix:/// or nbds+unix:///", uri)
}

// NewClient makes the handshake on conn, which it owns from then on: with TLS
// if secure is not nil, for the export of that name ("" is the default one).
// When the server refuses, the error wraps a *Refusal.
func NewClient(ctx context.Context, conn net.Conn, name string, secure *tls.Config) (*Client, error) {
	release := breakOnDone(ctx, conn)
	g := &greeter{conn: conn, name: name}
	err := g.run(ctx, secure)
	release()
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("handshake: %w", err)
	}
	return newClient(g), nil
}

// greeter is the client's side of a handshake.
type greeter struct {
	conn net.Conn
	name string

	size       int64
	flags      uint16
	maximum    uint32 // bytes of the longest request
	structured bool
	contexts   uint8
	ids        [len(contexts)]uint32
}

func (g *greeter) run(ctx context.Context, secure *tls.Config) error {
	zeroes, err := g.greet()
	if err != nil {
		return err
	}
	if secure != nil {
		if _, err := g.ask(optStartTLS, nil, nil); err != nil {
			return fmt.Errorf("start TLS: %w", err)
		}
		conn := tls.Client(g.conn, secure)
		if err := conn.HandshakeContext(ctx); err != nil {
			return fmt.Errorf("start TLS: %w", err)
		}
		g.conn = conn
	}
	if g.structured, err = g.ask(optStructured, nil, nil); err != nil && !unsupported(err) {
		return err
	}
	if g.structured {
		if _, err := g.ask(optSetContext, g.contextQuery(), g.takeContext); err != nil && !refused(err) {
			return err
		}
	}
	g.maximum = defaultMaximum
	data := binary.BigEndian.AppendUint32(nil, uint32(len(g.name)))
	data = append(data, g.name...)
	data = append(data, 0, 1, 0, byte(infoBlockSize))
	if _, err = g.ask(optGo, data, g.takeInfo); unsupported(err) {
		return g.exportName(zeroes)
	}
	return err
}

// defaultMaximum is what any server takes that says nothing of it.
const defaultMaximum = 32 << 20

// greet exchanges flags. zeroes says that the server will pad its answer to
// EXPORT_NAME.
func (g *greeter) greet() (zeroes bool, err error) {
	var b [greetingLength]byte
	if _, err := io.ReadFull(g.conn, b[:]); err != nil {
		return false, fmt.Errorf("read greeting: %w", err)
	}
	if binary.BigEndian.Uint64(b[:]) != magicGreeting || binary.BigEndian.Uint64(b[8:]) != magicOption {
		return false, errors.New("the other side is no NBD server, or one of the old style")
	}
	flags := binary.BigEndian.Uint16(b[16:])
	if flags&flagFixedNewstyle == 0 {
		return false, errors.New("the server does not know fixed newstyle")
	}
	flags &= flagFixedNewstyle | flagNoZeroes
	_, err = g.conn.Write(binary.BigEndian.AppendUint32(nil, uint32(flags)))
	return flags&flagNoZeroes == 0, err
}

// ask sends an option and hands all replies but the last to take. It reports
// whether the last was an acknowledgement; a refusal is a *Refusal.
func (g *greeter) ask(id uint32, data []byte, take func(Reply, []byte) error) (bool, error) {
	if err := g.send(id, data); err != nil {
		return false, err
	}
	for range maxOptions {
		var b [optionReplyHeader]byte
		if _, err := io.ReadFull(g.conn, b[:]); err != nil {
			return false, fmt.Errorf("read reply: %w", err)
		}
		length := binary.BigEndian.Uint32(b[16:])
		if binary.BigEndian.Uint64(b[:]) != magicReply || binary.BigEndian.Uint32(b[8:]) != id || length > maxOptionSkip {
			return false, fmt.Errorf("reply to option %d is malformed", id)
		}
		data := make([]byte, length)
		if _, err := io.ReadFull(g.conn, data); err != nil {
			return false, fmt.Errorf("read reply: %w", err)
		}
		r := Reply(binary.BigEndian.Uint32(b[12:]))
		switch {
		case r == repAck:
			return true, nil
		case r&repError != 0:
			return false, &Refusal{Reply: r, Message: string(data)}
		case take != nil:
			if err := take(r, data); err != nil {
				return false, err
			}
		}
	}
	return false, fmt.Errorf("option %d has more than %d replies", id, maxOptions)
}

func (g *greeter) send(id uint32, data []byte) error {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := g.conn.Write(append(b, data...))
	return err
}

// exportName is the way into transmission of servers that do not know GO.
func (g *greeter) exportName(zeroes bool) error {
	if err := g.send(optExportName, []byte(g.name)); err != nil {
		return err
	}
	b := make([]byte, 10, 10+legacyZeroes)
	if zeroes {
		b = b[:cap(b)]
	}
	if _, err := io.ReadFull(g.conn, b); err != nil {
		return fmt.Errorf("export %q: refused, or %w", g.name, err)
	}
	return g.takeExport(b)
}

func (g *greeter) takeInfo(r Reply, data []byte) error {
	if r != repInfo || len(data) < 2 {
		return nil
	}
	switch kind := binary.BigEndian.Uint16(data); {
	case kind == infoExport && len(data) == 12:
		return g.takeExport(data[2:])
	case kind == infoBlockSize && len(data) == 14:
		if most := binary.BigEndian.Uint32(data[10:]); most > 0 {
			g.maximum = min(g.maximum, most)
		}
	}
	return nil
}

func (g *greeter) takeExport(b []byte) error {
	size := binary.BigEndian.Uint64(b)
	if size > 1<<63-1 {
		return fmt.Errorf("export has an impossible size of %d bytes", size)
	}
	g.size, g.flags = int64(size), binary.BigEndian.Uint16(b[8:])
	return nil
}

func (g *greeter) contextQuery() []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(g.name)))
	b = append(b, g.name...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(contexts)))
	for _, c := range contexts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(c.name)))
		b = append(b, c.name...)
	}
	return b
}

func (g *greeter) takeContext(r Reply, data []byte) error {
	if r != repContext || len(data) < 4 {
		return nil
	}
	for i, c := range contexts {
		if string(data[4:]) == c.name {
			g.contexts |= c.bit
			g.ids[i] = binary.BigEndian.Uint32(data)
		}
	}
	return nil
}

func refused(err error) bool {
	var r *Refusal
	return errors.As(err, &r)
}

func unsupported(err error) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Reply == ReplyUnsupported
}
