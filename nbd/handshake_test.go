// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/twinbd/twinbd/internal/block"
)

// catalogue is a set of exports with one of each kind.
type catalogue struct{}

func (catalogue) List() []string { return []string{"vol", "away"} }

func (catalogue) Lookup(name string) (Export, error) {
	switch name {
	case "", "vol":
		return Export{Name: "vol", Description: "a volume", Size: 1 << 20, Contexts: block.ContextAllocation | block.ContextDirty}, nil
	case "bare":
		return Export{Name: "bare", Size: 5, ReadOnly: true, Minimum: 1, Preferred: 512, Maximum: 1024}, nil
	case "away":
		return Export{}, &Refusal{ReplyShutdown, "this node is secondary; alpha serves this volume"}
	case "odd":
		return Export{}, &Refusal{repAck, "not a refusal"}
	case "broken":
		return Export{Name: "broken", Size: -1}, nil
	}
	return Export{}, errors.New("nothing of that name")
}

// talk runs a handshake against what a client sends, and returns what the
// client gets back after the greeting.
func talk(t *testing.T, cfg HandshakeConfig, input []byte) (n *Negotiated, replies []byte, err error) {
	t.Helper()
	if cfg.Exports == nil {
		cfg.Exports = catalogue{}
	}
	client, server := net.Pipe()
	received := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(client)
		received <- b
	}()
	go func() { _, _ = client.Write(input) }() // the server may stop reading at any point
	n, err = Handshake(context.Background(), server, cfg)
	_ = server.Close()
	b := <-received
	_ = client.Close()
	if len(b) < greetingLength {
		t.Fatalf("greeting has %d bytes", len(b))
	}
	return n, b[greetingLength:], err
}

func opt(id uint32, data ...byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, magicOption)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

func str(s string) []byte {
	return append(binary.BigEndian.AppendUint32(nil, uint32(len(s))), s...)
}

// info is the data of INFO and GO.
func info(name string, kinds ...uint16) []byte {
	b := binary.BigEndian.AppendUint16(str(name), uint16(len(kinds)))
	for _, k := range kinds {
		b = binary.BigEndian.AppendUint16(b, k)
	}
	return b
}

// query is the data of LIST_META_CONTEXT and SET_META_CONTEXT.
func query(name string, queries ...string) []byte {
	b := binary.BigEndian.AppendUint32(str(name), uint32(len(queries)))
	for _, q := range queries {
		b = append(b, str(q)...)
	}
	return b
}

// showReplies decodes replies to options, one per line.
func showReplies(b []byte) string {
	var s strings.Builder
	for len(b) >= optionReplyHeader && binary.BigEndian.Uint64(b) == magicReply {
		id, r, n := binary.BigEndian.Uint32(b[8:]), Reply(binary.BigEndian.Uint32(b[12:])), binary.BigEndian.Uint32(b[16:])
		data := b[optionReplyHeader : optionReplyHeader+n]
		b = b[optionReplyHeader+n:]
		switch {
		case r == repAck:
			fmt.Fprintf(&s, "%d ack\n", id)
		case r == repServer:
			fmt.Fprintf(&s, "%d server %q\n", id, data[4:])
		case r == repContext:
			fmt.Fprintf(&s, "%d context %d %s\n", id, binary.BigEndian.Uint32(data), data[4:])
		case r == repInfo && binary.BigEndian.Uint16(data) == infoExport:
			fmt.Fprintf(&s, "%d export %d %#x\n", id, binary.BigEndian.Uint64(data[2:]), binary.BigEndian.Uint16(data[10:]))
		case r == repInfo && binary.BigEndian.Uint16(data) == infoBlockSize:
			fmt.Fprintf(&s, "%d sizes %d %d %d\n", id, binary.BigEndian.Uint32(data[2:]), binary.BigEndian.Uint32(data[6:]), binary.BigEndian.Uint32(data[10:]))
		case r == repInfo:
			fmt.Fprintf(&s, "%d info %d %q\n", id, binary.BigEndian.Uint16(data), data[2:])
		default:
			fmt.Fprintf(&s, "%d error %d %q\n", id, r&^repError, data)
		}
	}
	if len(b) > 0 {
		fmt.Fprintf(&s, "%d bytes %x\n", len(b), b[:min(len(b), 10)])
	}
	return s.String()
}

func TestHandshake(t *testing.T) {
	const fixed = "\x00\x00\x00\x03"
	long := make([]byte, maxOptionData+1)
	tests := []struct {
		name  string
		input [][]byte
		want  string // the replies
		err   string // how it ends; "" means in transmission
	}{
		{"go", [][]byte{opt(optGo, info("vol")...)}, "7 export 1048576 0xd6d\n7 ack\n", ""},
		{"go to the default", [][]byte{opt(optGo, info("", 3, 1, 2, 3, 99)...)},
			"7 export 1048576 0xd6d\n7 sizes 1 4096 33554432\n7 info 1 \"vol\"\n7 info 2 \"a volume\"\n7 ack\n", ""},
		{"go to one with own sizes", [][]byte{opt(optGo, info("bare", 2, 3)...)}, "7 export 5 0x50f\n7 sizes 1 512 1024\n7 ack\n", ""},
		{"structured, then go", [][]byte{opt(optStructured), opt(optGo, info("vol")...)}, "8 ack\n7 export 1048576 0xded\n7 ack\n", ""},
		{"info, then go", [][]byte{opt(optInfo, info("vol")...), opt(optGo, info("vol")...)}, "6 export 1048576 0xd6d\n6 ack\n7 export 1048576 0xd6d\n7 ack\n", ""},
		{"unknown export, then another", [][]byte{opt(optGo, info("nope")...), opt(optGo, info("vol")...)},
			"7 error 6 \"nothing of that name\"\n7 export 1048576 0xd6d\n7 ack\n", ""},
		{"not primary", [][]byte{opt(optGo, info("away")...), opt(optAbort)},
			"7 error 7 \"this node is secondary; alpha serves this volume\"\n2 ack\n", "client ended the handshake"},
		{"refusal without refusing", [][]byte{opt(optInfo, info("odd")...), opt(optAbort)}, "6 error 6 \"not a refusal\"\n2 ack\n", "client ended"},
		{"bad export", [][]byte{opt(optInfo, info("broken")...), opt(optAbort)}, "6 error 6 \"export \\\"broken\\\": size -1 is negative\"\n2 ack\n", "client ended"},
		{"list", [][]byte{opt(optList), opt(optAbort, 1, 2, 3)}, "3 server \"vola volume\"\n3 server \"away\"\n3 ack\n2 ack\n", "client ended"},
		{"list with data", [][]byte{opt(optList, 1), opt(optAbort)}, "3 error 3 \"option takes no data\"\n2 ack\n", "client ended"},
		{"structured with data", [][]byte{opt(optStructured, 1), opt(optAbort)}, "8 error 3 \"option takes no data\"\n2 ack\n", "client ended"},
		{"unknown option", [][]byte{opt(77, 1, 2), opt(optAbort)}, "77 error 1 \"option not supported\"\n2 ack\n", "client ended"},
		{"extended headers", [][]byte{opt(11), opt(optAbort)}, "11 error 1 \"option not supported\"\n2 ack\n", "client ended"},
		{"TLS where there is none", [][]byte{opt(optStartTLS), opt(optAbort)}, "5 error 2 \"this server has no TLS here\"\n2 ack\n", "client ended"},
		{"empty info", [][]byte{opt(optGo), opt(optAbort)}, "7 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"name longer than data", [][]byte{opt(optGo, 0, 0, 1, 0, 'v', 0, 0), opt(optAbort)}, "7 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"name of 4 GiB", [][]byte{opt(optGo, 255, 255, 255, 255, 0, 0), opt(optAbort)}, "7 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"fewer requests than said", [][]byte{opt(optGo, append(str("vol"), 0, 2, 0, 3)...), opt(optAbort)}, "7 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"more requests than said", [][]byte{opt(optGo, append(str("vol"), 0, 0, 0, 3)...), opt(optAbort)}, "7 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"NUL in name", [][]byte{opt(optGo, info("v\x00l")...), opt(optAbort)}, "7 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"name not UTF-8", [][]byte{opt(optGo, info("v\xffl")...), opt(optAbort)}, "7 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"name too long", [][]byte{opt(optGo, info(strings.Repeat("v", 4097))...), opt(optAbort)}, "7 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"much data", [][]byte{opt(optGo, long...), opt(optAbort)}, "7 error 9 \"option has too much data\"\n2 ack\n", "client ended"},
		{"far too much data", [][]byte{opt(optGo, long...)[:12], {0, 1, 0, 1}}, "", "claims 65537 bytes"},
		{"contexts before structured", [][]byte{opt(optListContext, query("vol")...), opt(optSetContext, query("vol")...), opt(optAbort)},
			"9 error 3 \"structured replies come first\"\n10 error 3 \"structured replies come first\"\n2 ack\n", "client ended"},
		{"list all contexts", [][]byte{opt(optStructured), opt(optListContext, query("vol")...), opt(optAbort)},
			"8 ack\n9 context 0 base:allocation\n9 context 0 twinbd:dirty\n9 ack\n2 ack\n", "client ended"},
		{"list contexts of a namespace", [][]byte{opt(optStructured), opt(optListContext, query("", "base:", "nope:")...), opt(optAbort)},
			"8 ack\n9 context 0 base:allocation\n9 ack\n2 ack\n", "client ended"},
		{"list contexts of unknown export", [][]byte{opt(optStructured), opt(optListContext, query("nope")...), opt(optAbort)},
			"8 ack\n9 error 6 \"nothing of that name\"\n2 ack\n", "client ended"},
		{"set contexts", [][]byte{opt(optStructured), opt(optSetContext, query("vol", "twinbd:dirty", "base:", "x-y:z", "noColon")...), opt(optGo, info("")...)},
			"8 ack\n10 context 2 twinbd:dirty\n10 ack\n7 export 1048576 0xded\n7 ack\n", ""},
		{"set no contexts", [][]byte{opt(optStructured), opt(optSetContext, query("vol")...), opt(optAbort)}, "8 ack\n10 ack\n2 ack\n", "client ended"},
		{"set contexts of an export without", [][]byte{opt(optStructured), opt(optSetContext, query("bare", "base:allocation")...), opt(optAbort)},
			"8 ack\n10 ack\n2 ack\n", "client ended"},
		{"too many queries said", [][]byte{opt(optStructured), opt(optSetContext, append(str("vol"), 255, 255, 255, 255)...), opt(optAbort)},
			"8 ack\n10 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"query longer than data", [][]byte{opt(optStructured), opt(optSetContext, append(str("vol"), 0, 0, 0, 1, 0, 0, 0, 9, 'b')...), opt(optAbort)},
			"8 ack\n10 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"data after the queries", [][]byte{opt(optStructured), opt(optListContext, append(query("vol", "base:"), 0)...), opt(optAbort)},
			"8 ack\n9 error 3 \"option is malformed\"\n2 ack\n", "client ended"},
		{"export name", [][]byte{opt(optExportName, []byte("vol")...)}, "10 bytes 00000000001000000d6d\n", ""},
		{"export name, refused", [][]byte{opt(optExportName, []byte("away")...)}, "", "alpha serves this volume"},
		{"export name, too long", [][]byte{opt(optExportName, long...)}, "", "too much data"},
		{"option without magic", [][]byte{make([]byte, 16)}, "", "option has magic 0x0"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			n, replies, err := talk(t, HandshakeConfig{}, append([]byte(fixed), bytes.Join(test.input, nil)...))
			if got := showReplies(replies); got != test.want {
				t.Errorf("got\n%swant\n%s", got, test.want)
			}
			switch {
			case test.err == "" && err != nil:
				t.Error(err)
			case test.err == "" && n.Export.Name == "":
				t.Error("no export was agreed on")
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("ended with %v", err)
			}
		})
	}
}

func TestHandshakeFlags(t *testing.T) {
	name := opt(optExportName, []byte("vol")...)
	tests := []struct {
		flags string
		input []byte
		want  int // bytes of reply
		err   string
	}{
		{"\x00\x00\x00\x01", name, 10 + legacyZeroes, ""},
		{"\x00\x00\x00\x03", name, 10, ""},
		{"\x00\x00\x00\x00", name, 10 + legacyZeroes, ""},
		{"\x00\x00\x00\x00", opt(optList), 0, "without fixed newstyle"},
		{"\x00\x00\x00\x07", name, 0, "unknown client flags 0x7"},
	}
	for _, test := range tests {
		_, replies, err := talk(t, HandshakeConfig{}, append([]byte(test.flags), test.input...))
		if len(replies) != test.want || (err == nil) != (test.err == "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("flags %x: %d bytes, %v", test.flags, len(replies), err)
		}
	}
}

func TestContextsHoldForTheirExport(t *testing.T) {
	tests := []struct {
		input [][]byte
		want  uint8
	}{
		{[][]byte{opt(optSetContext, query("vol", "base:allocation", "twinbd:dirty")...), opt(optGo, info("vol")...)}, 3},
		{[][]byte{opt(optSetContext, query("vol", "base:allocation")...), opt(optGo, info("bare")...)}, 0},
		{[][]byte{opt(optSetContext, query("vol", "base:allocation")...), opt(optSetContext, query("nope")...), opt(optGo, info("vol")...)}, 0},
		{[][]byte{opt(optSetContext, query("vol", "base:allocation")...), opt(optExportName, []byte("vol")...)}, 1},
	}
	for i, test := range tests {
		input := append([]byte("\x00\x00\x00\x03"), opt(optStructured)...)
		n, _, err := talk(t, HandshakeConfig{}, append(input, bytes.Join(test.input, nil)...))
		if err != nil || n.Contexts != test.want || !n.Structured || !n.NoZeroes {
			t.Errorf("case %d: %v, %+v", i, err, n)
		}
	}
}

func TestOptionsAreCounted(t *testing.T) {
	input := append([]byte("\x00\x00\x00\x03"), bytes.Repeat(opt(optList), maxOptions+1)...)
	if _, _, err := talk(t, HandshakeConfig{}, input); err == nil || !strings.Contains(err.Error(), "more than 256 options") {
		t.Errorf("ended with %v", err)
	}
}

// TestNothingIsReadBeyond: what follows the handshake is still in the
// connection.
func TestNothingIsReadBeyond(t *testing.T) {
	client, server := net.Pipe()
	defer client.Close()
	go func() {
		go func() { _, _ = io.Copy(io.Discard, client) }()
		input := append([]byte("\x00\x00\x00\x03"), opt(optGo, info("vol")...)...)
		_, _ = client.Write(append(input, "request"...))
	}()
	n, err := Handshake(t.Context(), server, HandshakeConfig{Exports: catalogue{}})
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 7)
	if _, err := io.ReadFull(n.Conn, b); err != nil || string(b) != "request" {
		t.Errorf("%q follows, %v", b, err)
	}
}

func TestForcedTLS(t *testing.T) {
	cfg := HandshakeConfig{ForceTLS: true}
	var input []byte
	for id := range uint32(12) {
		if id != optExportName && id != optAbort && id != optStartTLS {
			input = append(input, opt(id)...)
		}
	}
	flags := []byte("\x00\x00\x00\x03")
	_, replies, err := talk(t, cfg, append(append(flags[:4:4], input...), opt(optAbort)...))
	if got := showReplies(replies); strings.Count(got, "error 5 \"this server speaks only TLS here\"") != 9 || !errors.Is(err, ErrAborted) {
		t.Errorf("%v\n%s", err, got)
	}
	_, replies, err = talk(t, cfg, append(flags[:4:4], opt(optExportName, []byte("vol")...)...))
	if len(replies) != 0 || err == nil || !strings.Contains(err.Error(), "before starting TLS") {
		t.Errorf("%d bytes, %v", len(replies), err)
	}
}

func TestHandshakeTakesNoLonger(t *testing.T) {
	for name, input := range map[string]string{"silence": "", "flags only": "\x00\x00\x00\x03", "half an option": "\x00\x00\x00\x03IHAVE"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server := net.Pipe()
				defer client.Close()
				go func() {
					go func() { _, _ = io.Copy(io.Discard, client) }()
					_, _ = client.Write([]byte(input))
				}()
				_, err := Handshake(t.Context(), server, HandshakeConfig{Exports: catalogue{}})
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("ended with %v", err)
				}
				_ = server.Close()
			})
		})
	}
	t.Run("not reading", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			if _, err := Handshake(t.Context(), server, HandshakeConfig{Exports: catalogue{}}); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("ended with %v", err)
			}
		})
	})
}

func TestNeedsTLS(t *testing.T) {
	tests := []struct {
		a    net.Addr
		want bool
	}{
		{&net.UnixAddr{Name: "/s", Net: "unix"}, false},
		{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, false},
		{&net.TCPAddr{IP: net.IPv6loopback}, false},
		{&net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, true},
		{&net.TCPAddr{}, true},
		{&net.UDPAddr{}, true},
	}
	for _, test := range tests {
		if got := NeedsTLS(test.a); got != test.want {
			t.Errorf("%v: %v", test.a, got)
		}
	}
}

func TestExportCheck(t *testing.T) {
	bad := []Export{
		{Name: strings.Repeat("x", maxString+1)},
		{Size: -1},
		{Minimum: 3},
		{Minimum: 1 << 17},
		{Preferred: 256},
		{Minimum: 8192, Preferred: 4096},
		{Maximum: 2048},
		{Maximum: block.MaxLength + 1},
	}
	for _, e := range bad {
		if _, err := e.check(); err == nil {
			t.Errorf("%.200v was not refused", e)
		}
	}
	if e, err := (Export{Minimum: 8192}).check(); err != nil || e.Preferred != 8192 || e.Maximum != block.MaxLength {
		t.Errorf("%+v, %v", e, err)
	}
}
