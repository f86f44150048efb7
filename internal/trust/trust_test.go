// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

var names = []string{"alpha", "beta", "witness", "admin"}

func keyDir(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tls")
	if err := Init(dir, names); err != nil {
		t.Fatal(err)
	}
	return dir
}

func load(t *testing.T, dir, self string) *Keys {
	t.Helper()
	k, err := Load(dir, self)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// outcome is what the two sides of a connection saw.
type outcome struct {
	client, server error  // the first error of each side
	peer           string // whom the server saw
	read           string // what the client read
}

// meet connects two sides over loopback. The server says hello to whom it
// accepts.
func meet(t *testing.T, connect func(context.Context, net.Conn) (net.Conn, error), accept func(context.Context, net.Conn) (net.Conn, string, error)) outcome {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()

	var o outcome
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			o.server = err
			return
		}
		secure, peer, err := accept(ctx, conn)
		if o.peer, o.server = peer, err; err == nil {
			_, o.server = io.WriteString(secure, "hello")
			secure.Close()
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	secure, err := connect(ctx, conn)
	if err == nil {
		var data []byte
		data, err = io.ReadAll(secure)
		o.read = string(data)
		secure.Close()
	}
	o.client = err
	<-done
	return o
}

func dialling(k *Keys, expected string) func(context.Context, net.Conn) (net.Conn, error) {
	return func(ctx context.Context, conn net.Conn) (net.Conn, error) { return k.Connect(ctx, conn, expected) }
}

func accepting(k *Keys, allowed ...string) func(context.Context, net.Conn) (net.Conn, string, error) {
	return func(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
		return k.Accept(ctx, conn, allowed...)
	}
}

func TestMeet(t *testing.T) {
	dir := keyDir(t)
	o := meet(t, dialling(load(t, dir, "alpha"), "beta"), accepting(load(t, dir, "beta"), "alpha", "admin"))
	if o.client != nil || o.server != nil || o.peer != "alpha" || o.read != "hello" {
		t.Errorf("got %+v", o)
	}
}

func TestMeetWithoutKeys(t *testing.T) {
	o := meet(t, dialling(nil, "beta"), accepting(nil, "alpha"))
	if o.client != nil || o.server != nil || o.peer != "" || o.read != "hello" {
		t.Errorf("got %+v", o)
	}
	var none *Keys
	if none.Server("a") != nil || none.Client("a") != nil || none.Check("a") != nil || none.Self() != "" || none.PeerName(tls.ConnectionState{}) != "" {
		t.Error("nil keys make a difference")
	}
}

func TestWrongKeys(t *testing.T) {
	ours, theirs := keyDir(t), keyDir(t)
	mixed := keyDir(t) // like ours, but with another beta
	copyFile(t, ours, mixed, "alpha.crt")
	copyFile(t, ours, mixed, "witness.crt")

	t.Run("server", func(t *testing.T) { // beta has other keys, and would take ours
		o := meet(t, dialling(load(t, ours, "alpha"), "beta"), accepting(load(t, mixed, "beta"), "alpha"))
		wantWrongKey(t, o.client, WrongKey{Name: "beta", File: filepath.Join(ours, "beta.crt")})
		if o.read != "" {
			t.Errorf("read %q from a machine with the wrong key", o.read)
		}
	})
	t.Run("client", func(t *testing.T) { // beta, with other keys, dials
		o := meet(t, dialling(load(t, mixed, "beta"), "alpha"), accepting(load(t, ours, "alpha"), "beta"))
		wantWrongKey(t, o.server, WrongKey{Name: "beta", File: filepath.Join(ours, "beta.crt")})
		wantWrongKey(t, o.client, WrongKey{Name: "alpha", File: filepath.Join(mixed, "beta.crt"), Refused: true})
		if o.read != "" || o.peer != "" {
			t.Errorf("a machine with the wrong key got %q, as %q", o.read, o.peer)
		}
	})
	t.Run("client that speaks first", func(t *testing.T) {
		k := load(t, mixed, "beta")
		o := meet(t, func(ctx context.Context, conn net.Conn) (net.Conn, error) {
			secure, err := k.Connect(ctx, conn, "alpha")
			if err == nil {
				secure.Write(make([]byte, 32<<10)) // unread when the server hangs up
			}
			return secure, err
		}, accepting(load(t, ours, "alpha"), "beta"))
		wantWrongKey(t, o.client, WrongKey{Name: "alpha", File: filepath.Join(mixed, "beta.crt"), Refused: true})
	})
	t.Run("both", func(t *testing.T) {
		o := meet(t, dialling(load(t, theirs, "alpha"), "beta"), accepting(load(t, ours, "beta"), "alpha"))
		wantWrongKey(t, o.client, WrongKey{Name: "beta", File: filepath.Join(theirs, "beta.crt")})
		if o.server == nil {
			t.Error("the server accepted")
		}
	})
	t.Run("not allowed", func(t *testing.T) {
		o := meet(t, dialling(load(t, ours, "witness"), "beta"), accepting(load(t, ours, "beta"), "alpha"))
		wantError(t, o.server, "witness may not connect here; expected alpha")
		wantWrongKey(t, o.client, WrongKey{Name: "beta", File: filepath.Join(ours, "witness.crt"), Refused: true})
	})
	t.Run("another answers", func(t *testing.T) {
		o := meet(t, dialling(load(t, ours, "alpha"), "beta"), accepting(load(t, ours, "witness"), "alpha"))
		wantError(t, o.client, "connect to beta: witness answered in place of beta; hint: ")
	})
	t.Run("stranger", func(t *testing.T) {
		other := filepath.Join(t.TempDir(), "tls")
		if err := Init(other, []string{"mallory", "beta"}); err != nil {
			t.Fatal(err)
		}
		copyFile(t, ours, other, "beta.crt") // it trusts us
		o := meet(t, dialling(loadLoose(t, other, "mallory"), "beta"), accepting(load(t, ours, "beta"), "alpha"))
		wantError(t, o.server, `an unknown machine connected, which calls itself "mallory"; expected alpha`)
	})
}

// loadLoose loads keys of a directory in which the certificate of beta is not
// that of its key: fine, as long as beta itself is not loaded.
func loadLoose(t *testing.T, dir, self string) *Keys {
	t.Helper()
	if _, err := Load(dir, "beta"); err == nil || !strings.Contains(err.Error(), "is not the key of") {
		t.Errorf("key and certificate that do not belong together: %v", err)
	}
	return load(t, dir, self)
}

func TestDatesAreNotConsulted(t *testing.T) {
	dir := keyDir(t)
	alpha, beta := load(t, dir, "alpha"), load(t, dir, "beta")
	for _, now := range []time.Time{{}, time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC), time.Date(30000, 1, 1, 0, 0, 0, 0, time.UTC)} {
		o := meet(t,
			func(ctx context.Context, conn net.Conn) (net.Conn, error) {
				config := alpha.Client("beta")
				config.Time = func() time.Time { return now }
				secure := tls.Client(conn, config)
				return secure, secure.HandshakeContext(ctx)
			},
			func(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
				config := beta.Server("alpha")
				config.Time = func() time.Time { return now }
				secure := tls.Server(conn, config)
				err := secure.HandshakeContext(ctx)
				return secure, beta.PeerName(secure.ConnectionState()), err
			})
		if o.client != nil || o.server != nil || o.peer != "alpha" || o.read != "hello" {
			t.Errorf("in the year %d: %+v", now.Year(), o)
		}
	}
}

func TestUnsafeClientsAreRefused(t *testing.T) {
	dir := keyDir(t)
	alpha, beta := load(t, dir, "alpha"), load(t, dir, "beta")
	for name, edit := range map[string]func(*tls.Config){
		"no certificate": func(c *tls.Config) { c.Certificates = nil },
		"TLS 1.2":        func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"certificate of beta without its key": func(c *tls.Config) {
			c.Certificates = []tls.Certificate{{Certificate: beta.own.Certificate, PrivateKey: alpha.own.PrivateKey}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := meet(t, func(ctx context.Context, conn net.Conn) (net.Conn, error) {
				config := alpha.Client("beta")
				edit(config)
				secure := tls.Client(conn, config)
				return &Conn{Conn: secure, keys: alpha, peer: "beta"}, secure.HandshakeContext(ctx)
			}, accepting(beta, "alpha", "beta"))
			if o.server == nil || o.client == nil || o.read != "" {
				t.Errorf("got %+v", o)
			}
			if name == "no certificate" {
				wantWrongKey(t, o.client, WrongKey{Name: "beta", File: filepath.Join(dir, "alpha.crt"), Refused: true})
			}
		})
	}
}

func TestExplainLeavesOtherErrors(t *testing.T) {
	k := load(t, keyDir(t), "alpha")
	for _, err := range []error{io.EOF, &net.OpError{Op: "read", Err: tls.AlertError(42)}, &net.OpError{Op: "remote error", Err: tls.AlertError(80)}} {
		if got := k.Explain("beta", err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
	if k.Explain("beta", nil) != nil {
		t.Error("nil became an error")
	}
}

func TestInitOverwritesNothing(t *testing.T) {
	dir := keyDir(t)
	before := snapshot(t, dir)
	wantError(t, Init(dir, []string{"gamma", "admin"}), "keys exist in "+dir+" (admin.key); hint: ")
	if after := snapshot(t, dir); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	if err := Init(dir, []string{"gamma"}); err != nil {
		t.Errorf("add a name: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Init(file, names); err == nil {
		t.Error("made keys in a file")
	}
}

// An error on the way takes back what was made.
func TestInitLeavesNoHalf(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "tls")
	if err := Init(dir, []string{"alpha", "no/such/place"}); err == nil {
		t.Fatal("made a key in a directory that is not there")
	}
	if left := snapshot(t, dir); left != "" {
		t.Errorf("left behind:\n%s", left)
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, tt := range []struct {
		name, want string
		spoil      func(t *testing.T, dir string)
	}{
		{"no key", "alpha.key is missing; hint: make keys with `twinbd init`", remove("alpha.key")},
		{"no certificate", "alpha.crt is missing; hint: make keys with `twinbd init`", remove("alpha.crt")},
		{"garbage key", `alpha.key: has no PEM block "PRIVATE KEY"`, write("alpha.key", "garbage")},
		{"garbage certificate of the peer", `beta.crt: has no PEM block "CERTIFICATE"`, write("beta.crt", "")},
		{"certificate in the key file", `alpha.key: has no PEM block "PRIVATE KEY"`, func(t *testing.T, dir string) {
			os.Rename(filepath.Join(dir, "alpha.crt"), filepath.Join(dir, "alpha.key"))
			copyFile(t, keyDir(t), dir, "alpha.crt")
			os.Chmod(filepath.Join(dir, "alpha.key"), 0o600)
		}},
		{"key of another", "alpha.key is not the key of", func(t *testing.T, dir string) { copyFile(t, keyDir(t), dir, "alpha.key") }},
		{"broken DER", "read key", write("alpha.key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")})))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := keyDir(t)
			tt.spoil(t, dir)
			_, err := Load(dir, "alpha")
			wantError(t, err, tt.want)
		})
	}
}

func TestLoadRefusesReadableKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("file modes say nothing on Windows")
	}
	dir := keyDir(t)
	file := filepath.Join(dir, "alpha.key")
	if err := os.Chmod(file, 0o640); err != nil {
		t.Fatal(err)
	}
	_, err := Load(dir, "alpha")
	wantError(t, err, fmt.Sprintf("%s can be read by others (mode 0640); hint: chmod 600 %s", file, file))
	// The peer's key is none of our business: only its certificate is read.
	if err := os.Remove(filepath.Join(dir, "alpha.key")); err != nil {
		t.Fatal(err)
	}
	load(t, dir, "beta")
}

func TestCheck(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "odd[name]*")
	if err := Init(dir, names); err != nil {
		t.Fatal(err)
	}
	remove("witness.crt")(t, dir)
	k := load(t, dir, "alpha")
	if err := k.Check("alpha", "beta"); err != nil {
		t.Error(err)
	}
	wantError(t, k.Check("beta", "witness"), "witness.crt is missing; hint: ")
}

// The certificates are also of use to others than us: right version and names.
func TestCertificates(t *testing.T) {
	dir := keyDir(t)
	raw, _, err := readCertificate(filepath.Join(dir, "beta.crt"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(raw)
	if err != nil {
		t.Fatal(err)
	}
	if c.Subject.CommonName != "beta" || c.VerifyHostname("beta") != nil || c.VerifyHostname("alpha") == nil {
		t.Errorf("certificate of %q for %v", c.Subject.CommonName, c.DNSNames)
	}
	if err := c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(filepath.Join(dir, "beta.key"))
	if err != nil || runtime.GOOS != "windows" && info.Mode() != 0o600 {
		t.Errorf("key has mode %v, %v", info.Mode(), err)
	}
}

func wantWrongKey(t *testing.T, err error, want WrongKey) {
	t.Helper()
	got, ok := errors.AsType[*WrongKey](err)
	if !ok || *got != want {
		t.Errorf("got %v, want %v", err, &want)
	}
}

func wantError(t *testing.T, err error, part string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
		t.Errorf("got error %v, want one line with %q", err, part)
	}
}

func remove(name string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func write(name, text string) func(*testing.T, string) {
	return func(t *testing.T, dir string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func copyFile(t *testing.T, from, to, name string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(from, name))
	if err != nil {
		t.Fatal(err)
	}
	write(name, string(data))(t, to)
}

func snapshot(t *testing.T, dir string) string {
	t.Helper()
	var all strings.Builder
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&all, "%s %s\n", e.Name(), data)
	}
	return all.String()
}
