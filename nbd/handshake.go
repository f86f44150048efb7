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
	"time"
)

// Limits of a handshake. An honest client stays far below all of them.
const (
	DefaultHandshakeTimeout = 10 * time.Second

	maxOptions    = 256      // per connection
	maxOptionData = 8 << 10  // bytes that are looked at
	maxOptionSkip = 64 << 10 // bytes that are read and thrown away; beyond, the connection ends
)

// The ways in which a handshake ends without anybody's fault.
var (
	// ErrAborted: the client said that it does not want to go on.
	ErrAborted = errors.New("client ended the handshake")
	// ErrLeft: the client closed the connection between two options.
	ErrLeft = errors.New("client left during the handshake")
)

// HandshakeConfig says what a handshake may agree to.
type HandshakeConfig struct {
	Exports Exports

	// TLS lets the client upgrade the connection. ForceTLS answers everything
	// else with "TLS required" until it has; see NeedsTLS.
	TLS      *tls.Config
	ForceTLS bool

	// Timeout bounds the whole handshake; zero means DefaultHandshakeTimeout.
	Timeout time.Duration
}

// Negotiated is what a handshake agreed on.
type Negotiated struct {
	Conn       net.Conn // to go on with: a *tls.Conn where TLS was started
	Export     Export   // with all defaults filled in
	Structured bool     // replies may be structured
	Contexts   uint8    // block.Context… bits that the client selected
	NoZeroes   bool     // the client asked to be spared 124 zeroes

	place *place // at the gate; nil without one
}

// NeedsTLS reports whether an address can be reached from another machine, so
// that a server must force TLS there: everything but Unix sockets and loopback.
func NeedsTLS(a net.Addr) bool {
	switch a := a.(type) {
	case *net.UnixAddr:
		return false
	case *net.TCPAddr:
		return !a.IP.IsLoopback()
	}
	return a.Network() != "pipe"
}

// Handshake does the server's part of the fixed newstyle handshake and blocks
// until it is over. It reads no byte beyond it, so that Negotiated.Conn can be
// read by anybody afterwards, and leaves no deadline behind. On an error the
// caller closes conn. ErrAborted and ErrLeft are the peaceful ones.
func Handshake(ctx context.Context, conn net.Conn, cfg HandshakeConfig) (*Negotiated, error) {
	timeout := cfg.Timeout
	if timeout <= 0 {
		timeout = DefaultHandshakeTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	release := breakOnDone(ctx, conn)

	h := &handshake{cfg: cfg, conn: conn}
	err := h.run(ctx)
	release()
	if err != nil {
		if cause := ctx.Err(); cause != nil {
			err = fmt.Errorf("%w (%w)", err, cause)
		}
		return nil, fmt.Errorf("handshake: %w", err)
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("handshake: clear deadline: %w", err)
	}
	return &Negotiated{
		Conn:       h.conn,
		Export:     h.export,
		Structured: h.structured,
		Contexts:   h.chosen(),
		NoZeroes:   h.noZeroes,
	}, nil
}

// breakOnDone makes reads and writes of conn fail once ctx is done. After the
// returned function has been called ctx no longer touches conn.
func breakOnDone(ctx context.Context, conn net.Conn) (release func()) {
	fired := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(fired)
		_ = conn.SetDeadline(time.Unix(1, 0)) // a connection without deadlines is one of a test
	})
	return func() {
		if !stop() {
			<-fired
		}
	}
}

// handshake is one in progress. Everything up to noZeroes belongs to the
// connection; the rest is forgotten when TLS starts.
type handshake struct {
	cfg      HandshakeConfig
	conn     net.Conn
	secure   bool
	fixed    bool // the client knows fixed newstyle
	noZeroes bool

	export      Export
	structured  bool
	contexts    uint8
	contextsFor string // the canonical name of the export that they were chosen for

	data  [maxOptionData]byte
	reply []byte // the answer under construction, sent by flush
}

// chosen are the contexts that hold for the export that was chosen.
func (h *handshake) chosen() uint8 {
	if h.contextsFor != h.export.Name {
		return 0
	}
	return h.contexts
}

func (h *handshake) run(ctx context.Context) error {
	if err := h.greet(); err != nil {
		return err
	}
	for range maxOptions {
		id, data, err := h.readOption()
		if err != nil {
			return err
		}
		over, err := h.option(ctx, id, data)
		if err != nil {
			return err
		}
		if err := h.flush(); err != nil {
			return err
		}
		if over {
			return nil
		}
	}
	return fmt.Errorf("more than %d options", maxOptions)
}

// greet exchanges the greeting and the flags.
func (h *handshake) greet() error {
	h.reply = binary.BigEndian.AppendUint64(h.reply, magicGreeting)
	h.reply = binary.BigEndian.AppendUint64(h.reply, magicOption)
	h.reply = binary.BigEndian.AppendUint16(h.reply, flagFixedNewstyle|flagNoZeroes)
	if err := h.flush(); err != nil {
		return err
	}
	var b [4]byte
	if _, err := io.ReadFull(h.conn, b[:]); err != nil {
		return leftOr(err, "read client flags")
	}
	flags := binary.BigEndian.Uint32(b[:])
	if flags&^uint32(flagFixedNewstyle|flagNoZeroes) != 0 {
		return fmt.Errorf("unknown client flags %#x", flags)
	}
	h.fixed = flags&uint32(flagFixedNewstyle) != 0
	h.noZeroes = flags&uint32(flagNoZeroes) != 0
	return nil
}

// readOption reads the next option. data is nil, not empty, when there was
// more than an honest client sends; it has been read off then. It is valid
// until the next call.
func (h *handshake) readOption() (id uint32, data []byte, err error) {
	var b [optionHeader]byte
	if _, err := io.ReadFull(h.conn, b[:]); err != nil {
		return 0, nil, leftOr(err, "read option")
	}
	if got := binary.BigEndian.Uint64(b[:]); got != magicOption {
		return 0, nil, fmt.Errorf("option has magic %#x", got)
	}
	id = binary.BigEndian.Uint32(b[8:])
	length := binary.BigEndian.Uint32(b[12:])
	switch {
	case length > maxOptionSkip:
		return 0, nil, fmt.Errorf("option %d claims %d bytes of data", id, length)
	case length > maxOptionData:
		if _, err := io.CopyN(io.Discard, h.conn, int64(length)); err != nil {
			return 0, nil, fmt.Errorf("read option %d: %w", id, err)
		}
		return id, nil, nil
	}
	data = h.data[:length]
	if _, err := io.ReadFull(h.conn, data); err != nil {
		return 0, nil, fmt.Errorf("read option %d: %w", id, err)
	}
	return id, data, nil
}

// leftOr maps the end of the stream between two messages to ErrLeft.
func leftOr(err error, doing string) error {
	if errors.Is(err, io.EOF) {
		return ErrLeft
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// flush sends what was appended to the reply.
func (h *handshake) flush() error {
	if len(h.reply) == 0 {
		return nil
	}
	_, err := h.conn.Write(h.reply)
	h.reply = h.reply[:0]
	if err != nil {
		return fmt.Errorf("write reply: %w", err)
	}
	return nil
}

// respond appends one reply to an option.
func (h *handshake) respond(id uint32, r Reply, data ...[]byte) {
	length := 0
	for _, d := range data {
		length += len(d)
	}
	h.reply = binary.BigEndian.AppendUint64(h.reply, magicReply)
	h.reply = binary.BigEndian.AppendUint32(h.reply, id)
	h.reply = binary.BigEndian.AppendUint32(h.reply, uint32(r))
	h.reply = binary.BigEndian.AppendUint32(h.reply, uint32(length))
	for _, d := range data {
		h.reply = append(h.reply, d...)
	}
}

// refuse appends the reply that stands for an error.
func (h *handshake) refuse(id uint32, err error) {
	var r *Refusal
	if !errors.As(err, &r) || r.Reply&repError == 0 {
		r = &Refusal{Reply: ReplyUnknown, Message: err.Error()}
	}
	text := r.Error()
	h.respond(id, r.Reply, []byte(text[:min(len(text), maxString)]))
}
