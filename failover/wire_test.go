// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

var (
	sampleRecord = Record{Epoch: 0x0102030405060708 % MaxEpoch, Holder: "alpha", Mode: Alone, Token: Token{1, 2}, Digest: Digest{3, 4},
		Timeout: 3 * time.Second}

	sampleQuery = Query{Cluster: "systel", Service: "postgres", From: "beta", Serving: true,
		Knows: View{7, "alpha", Pair}, Seen: Stamp{0xcafe, time.Minute}, Timeout: 3 * time.Second}

	sampleRequest = Request{
		Cluster: "systel", Service: "postgres", From: "alpha", Replaces: 7, RaiseTo: 40, Claim: 39,
		Holder: "beta", Mode: Pair, Operator: true, Token: Token{0xaa, 0xbb}, Seen: Stamp{0xcafe, time.Minute}, Timeout: 3 * time.Second,
	}

	sampleAnswer = Answer{Granted: true, Void: true, Renewed: true, Wait: time.Second, Record: sampleRecord, Reason: "because – so",
		Stamp: Stamp{0xcafe, time.Hour}}

	sampleState = NodeState{View: View{7, "beta", Pair}, Known: 12, InStep: 6, Promise: 9, Held: 11, Disowned: 10, Maintenance: true, Wanted: WantStop}
)

// The bytes on the wire and on the disk, as they are for ever.
func TestGolden(t *testing.T) {
	slot := func(kind slotKind, payload []byte) []byte {
		b := make([]byte, block.SlotHeader+len(payload))
		return block.EncodeSlot(b, kind.magic, kind.version, 1, payload)
	}
	digest := sampleRequest.digest()
	for name, b := range map[string][]byte{
		"hello":   (&frame{kind: frameHello, call: 1, body: helloBody()}).append(nil),
		"read":    (&frame{kind: frameRead, call: 2, body: sampleQuery.append(nil)}).append(nil),
		"change":  (&frame{kind: frameChange, call: 3, body: sampleRequest.append(nil)}).append(nil),
		"answer":  (&frame{kind: frameAnswer, call: 3, body: sampleAnswer.append(nil)}).append(nil),
		"failure": (&frame{kind: frameFailure, call: 4, body: failureBody(fmt.Errorf("x: %w", ErrUnusable))}).append(nil),
		"digest":  digest[:],
		"record-file": slot(recordKind,
			appendRecordFile(nil, serviceKey{"systel", "postgres"}, sampleRecord)),
		"state-file": slot(stateKind, appendState(nil, StateOwner{"systel", "alpha", "postgres"},
			sampleState)),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".hex")
			got := hex.Dump(b)
			if *rewrite {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("the format has changed:\n%swant\n%s", got, want)
			}
		})
	}
}

func TestMessagesReturn(t *testing.T) {
	if q, err := decodeQuery(sampleQuery.append(nil)); err != nil || q != sampleQuery {
		t.Errorf("query %+v, %v", q, err)
	}
	if q, err := decodeRequest(sampleRequest.append(nil)); err != nil || q != sampleRequest {
		t.Errorf("request %+v, %v", q, err)
	}
	for _, a := range []Answer{sampleAnswer, {}} {
		if got, err := decodeAnswer(a.append(nil)); err != nil || got != a {
			t.Errorf("answer %+v, %v", got, err)
		}
	}
	for code, want := range failureCodes {
		err := decodeFailure(failureBody(fmt.Errorf("something: %w", want)))
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "something") {
			t.Errorf("code %d: %v", code, err)
		}
	}
	if err := decodeFailure(appendText([]byte{9, 9}, "new")); err == nil || err.Error() != "new" {
		t.Errorf("unknown code: %v", err)
	}
}

// Every field is in the digest.
func TestDigestCoversAll(t *testing.T) {
	digests := map[Digest]string{sampleRequest.digest(): "none"}
	for _, leaf := range leaves(reflect.TypeFor[Request](), nil) {
		q := sampleRequest
		switch f := reflect.ValueOf(&q).Elem().FieldByIndex(leaf); f.Kind() {
		case reflect.String:
			f.SetString(f.String() + "x")
		case reflect.Bool:
			f.SetBool(!f.Bool())
		case reflect.Array:
			f.Index(3).SetUint(1)
		case reflect.Int64:
			f.SetInt(f.Int() + 1)
		default:
			f.SetUint(f.Uint() + 1)
		}
		name := reflect.TypeFor[Request]().FieldByIndex(leaf).Name
		if other, ok := digests[q.digest()]; ok {
			t.Errorf("changing %s changes as little as changing %s", name, other)
		}
		digests[q.digest()] = name
	}
}

// leaves are the fields that have none of their own.
func leaves(of reflect.Type, at []int) (all [][]int) {
	for i := range of.NumField() {
		index := append(slices.Clone(at), i)
		if f := of.Field(i); f.Type.Kind() == reflect.Struct {
			all = append(all, leaves(f.Type, index)...)
		} else {
			all = append(all, index)
		}
	}
	return all
}

func TestMalformed(t *testing.T) {
	request, answer := sampleRequest.append(nil), sampleAnswer.append(nil)
	empty := (&Answer{}).append(nil)
	query := (&Query{Cluster: "c", Service: "s", From: "a", Knows: View{7, "a", Pair}, Timeout: 1}).append(nil)
	noRun := Query{Cluster: "c", Service: "s", From: "a", Seen: Stamp{At: 1}, Timeout: 1}
	timeless := sampleAnswer
	timeless.Record.Timeout = 0
	with := func(b []byte, at int, value byte) []byte {
		b = bytes.Clone(b)
		b[at] = value
		return b
	}
	for _, c := range []struct {
		name string
		err  error
	}{
		{"request cut", second(decodeRequest(request[:len(request)-1]))},
		{"request with more", second(decodeRequest(append(bytes.Clone(request), 0)))},
		{"request with unknown flag", second(decodeRequest(with(request, len(request)-41, 2)))},
		{"request with negative timeout", second(decodeRequest(with(request, len(request)-8, 0x80)))},
		{"request with negative stamp", second(decodeRequest(with(request, len(request)-16, 0x80)))},
		{"empty request", second(decodeRequest(nil))},
		{"query with more", second(decodeQuery(append(sampleQuery.append(nil), 0)))},
		{"query with wild view", second(decodeQuery(with(query, 16, 0)))},
		{"query with stamp of no run", second(decodeQuery(noRun.append(nil)))},
		{"answer cut", second(decodeAnswer(answer[:20]))},
		{"answer with unknown flag", second(decodeAnswer(with(answer, 0, 8)))},
		{"negative wait", second(decodeAnswer(with(answer, 1, 0x80)))},
		{"epoch above the highest", second(decodeAnswer(with(answer, 25, 0xff)))},
		{"wild holder", second(decodeAnswer(with(answer, 34, '/')))},
		{"wild mode", second(decodeAnswer(with(answer, 39, 3)))},
		{"record without a timeout", second(decodeAnswer(timeless.append(nil)))},
		{"empty record with a mode", second(decodeAnswer(with(empty, 34, 1)))},
		{"empty record with a timeout", second(decodeAnswer(with(empty, 90, 1)))},
		{"reason with an escape", second(decodeAnswer(with(answer, len(answer)-1, 0x1b)))},
		{"reason that is no UTF-8", second(decodeAnswer(with(answer, len(answer)-1, 0xff)))},
	} {
		if !errors.Is(c.err, errMalformed) {
			t.Errorf("%s: %v", c.name, c.err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestReadFrame(t *testing.T) {
	good := (&frame{kind: frameRead, call: 77, body: []byte("body")}).append(nil)
	for i := range good {
		for bit := range 8 {
			b := bytes.Clone(good)
			b[i] ^= 1 << bit
			if f, err := readFrame(bytes.NewReader(b)); err == nil {
				t.Fatalf("bit %d of byte %d: %+v", bit, i, f)
			}
		}
		want := io.ErrUnexpectedEOF
		if i == 0 {
			want = io.EOF
		}
		if _, err := readFrame(bytes.NewReader(good[:i])); err != want {
			t.Errorf("cut at %d: %v", i, err)
		}
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"plain – text":            "plain – text",
		"two\nlines\x1b[31m":      "two lines [31m",
		"bad \xff byte":           "bad   byte",
		strings.Repeat("x", 2000): strings.Repeat("x", maxText),
		strings.Repeat("é", 2000): strings.Repeat("é", maxText/2),
		strings.Repeat("€", 2000): strings.Repeat("€", maxText/3),
	} {
		if got := printable(in); got != want || printable(got) != got {
			t.Errorf("%.20q: %.40q", in, got)
		}
	}
}

// What a decoder accepts encodes to the same bytes, so that nothing has two
// forms; everything else is an error and no more.
func FuzzMessages(f *testing.F) {
	f.Add(sampleQuery.append(nil))
	f.Add(sampleRequest.append(nil))
	f.Add(sampleAnswer.append(nil))
	f.Add((&Answer{}).append(nil))
	f.Add(failureBody(ErrFull))
	f.Add(appendRecordFile(nil, serviceKey{"c", "s"}, sampleRecord))
	f.Add(appendState(nil, StateOwner{"c", "n", "s"}, sampleState))
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(what string, again []byte, err error) {
			if err == nil && !bytes.Equal(again, b) {
				t.Errorf("%s: %x became %x", what, b, again)
			}
		}
		q, err := decodeQuery(b)
		same("read", q.append(nil), err)
		r, err := decodeRequest(b)
		same("change", r.append(nil), err)
		a, err := decodeAnswer(b)
		same("answer", a.append(nil), err)
		key := serviceKey{"c", "s"}
		record, err := decodeRecordFile(b, key)
		same("record", appendRecordFile(nil, key, record), err)
		owner := StateOwner{"c", "n", "s"}
		state, err := decodeState(b, owner)
		same("state", appendState(nil, owner, state), err)
		decodeFailure(b)
		chooseVersion(b)
	})
}

// A stream of any bytes gives frames that encode to it, and then an error.
func FuzzFrames(f *testing.F) {
	hello := (&frame{kind: frameHello, call: 1, body: helloBody()}).append(nil)
	f.Add(hello)
	f.Add((&frame{kind: frameChange, call: 2, body: sampleRequest.append(nil)}).append(hello))
	f.Add(hello[:5])
	f.Fuzz(func(t *testing.T, b []byte) {
		in, again := bytes.NewReader(b), []byte(nil)
		for {
			fr, err := readFrame(in)
			if err != nil {
				break
			}
			again = fr.append(again)
		}
		if !bytes.HasPrefix(b, again) {
			t.Errorf("%x became %x", b, again)
		}
	})
}
