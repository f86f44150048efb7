// SPDX-License-Identifier: Apache-2.0

package nbd_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/nbd"
	"github.com/twinbd/twinbd/nbd/nbdtest"
)

// These tests let other people's clients talk to our sessions.

// run executes a real client, or skips the test where it is not installed.
func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not installed", name)
	}
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func unixURI(socket, export string) string {
	return "nbd+unix:///" + export + "?socket=" + socket
}

// sample is an image with data, zeroes and holes of all sizes.
func sample(t *testing.T) []byte {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := mathrand.New(mathrand.NewPCG(seed, 0))
	image := make([]byte, testSize)
	for at := 0; at < len(image); {
		n := min(1+rng.IntN(200<<10), len(image)-at)
		if rng.IntN(2) == 0 {
			for i := range image[at : at+n] {
				image[at+i] = byte(rng.Uint32())
			}
		}
		at += n
	}
	return image
}

func TestNbdinfo(t *testing.T) {
	_, socket := startServer(t, nbd.HandshakeConfig{})
	var got struct {
		Exports []struct {
			Name        string   `json:"export-name"`
			Description string   `json:"description"`
			Size        int64    `json:"export-size"`
			Contexts    []string `json:"contexts"`
			ReadOnly    bool     `json:"is_read_only"`
			Flush       bool     `json:"can_flush"`
			FUA         bool     `json:"can_fua"`
			Trim        bool     `json:"can_trim"`
			Zero        bool     `json:"can_zero"`
			FastZero    bool     `json:"can_fast_zero"`
			DF          bool     `json:"can_df"`
			Cache       bool     `json:"can_cache"`
			Multi       bool     `json:"can_multi_conn"`
			Maximum     int64    `json:"block_size_maximum"`
		}
	}
	out := run(t, "nbdinfo", "--json", "--list", unixURI(socket, ""))
	if err := json.Unmarshal([]byte(out), &got); err != nil {
		t.Fatalf("%v in %s", err, out)
	}
	if len(got.Exports) != 2 {
		t.Fatalf("%d exports in %s", len(got.Exports), out)
	}
	e := got.Exports[0]
	if e.Name != "vol" || e.Description != "a volume" || e.Size != testSize || e.Maximum != 32<<20 || strings.Join(e.Contexts, " ") != "base:allocation twinbd:dirty" {
		t.Errorf("first export is %+v", e)
	}
	if e.ReadOnly || !e.Flush || !e.FUA || !e.Trim || !e.Zero || !e.FastZero || !e.DF || !e.Cache || !e.Multi {
		t.Errorf("first export lacks a flag: %+v", e)
	}
	if f := got.Exports[1]; !f.ReadOnly || f.Trim || f.Zero {
		t.Errorf("second export is not read-only: %+v", f)
	}
	status := run(t, "nbdinfo", "--map", unixURI(socket, "vol"))
	if !strings.Contains(status, "hole,zero") {
		t.Errorf("map of an empty volume: %s", status)
	}
	status = run(t, "nbdinfo", "--map=twinbd:dirty", unixURI(socket, "vol"))
	if !strings.Contains(status, fmt.Sprint(testSize)) {
		t.Errorf("dirty map of an empty volume: %s", status)
	}
}

func TestNbdcopy(t *testing.T) {
	s, socket := startServer(t, nbd.HandshakeConfig{})
	dir := t.TempDir()
	image := sample(t)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, image, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, extra := range [][]string{nil, {"--connections=4", "--requests=64"}, {"--synchronous"}, {"--request-size=4096"}, {"--allocated"}} {
		run(t, "nbdcopy", append(extra, "--flush", in, unixURI(socket, ""))...)
		s.Do(func(e *nbdtest.Engine) {
			if !bytes.Equal(e.Data, image) {
				t.Errorf("%v: what was copied in differs", extra)
			}
		})
		run(t, "nbdcopy", append(extra, unixURI(socket, ""), out)...)
		if got, err := os.ReadFile(out); err != nil || sha256.Sum256(got) != sha256.Sum256(image) {
			t.Errorf("%v: what was copied out differs (%v)", extra, err)
		}
		s.Do(func(e *nbdtest.Engine) { clear(e.Data) })
	}
}

func TestQemu(t *testing.T) {
	s, socket := startServer(t, nbd.HandshakeConfig{})
	uri := unixURI(socket, "vol")
	out := run(t, "qemu-io", "-f", "raw", "-c", "write -P 7 4096 65536", "-c", "write -f -P 9 100 1000", "-c", "read -P 7 8192 4096",
		"-c", "read -P 9 100 1000", "-c", "write -z 16384 8192", "-c", "write -z -u 32768 4096", "-c", "discard 40960 4096",
		"-c", "read -P 0 16384 8192", "-c", "flush", uri)
	if strings.Contains(out, "failed") || strings.Contains(out, "error") {
		t.Error(out)
	}
	image := sample(t)
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, image, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", file, uri)
	run(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", file, uri)
	run(t, "qemu-img", "map", "--output=json", "-f", "raw", uri)
	if out := run(t, "qemu-img", "info", uri); !strings.Contains(out, "8 MiB") {
		t.Error(out)
	}
	s.Do(func(e *nbdtest.Engine) {
		if !bytes.Equal(e.Data, image) {
			t.Error("what was converted in differs")
		}
	})
}

func TestFio(t *testing.T) {
	_, socket := startServer(t, nbd.HandshakeConfig{})
	run(t, "fio", "--name=verify", "--ioengine=nbd", "--uri="+unixURI(socket, ""), "--rw=randwrite", "--bsrange=512-64k", "--size=8m",
		"--iodepth=32", "--verify=crc32c", "--verify_fatal=1", "--fsync=64", "--randseed=1")
}

// certificates writes a CA, a server and a client certificate to a directory
// in the layout that libnbd wants, and returns what the server needs.
func certificates(t *testing.T, dir string) *tls.Config {
	t.Helper()
	make := func(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) ([]byte, *ecdsa.PrivateKey) {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		if signer == nil {
			parent, signer = template, key
		}
		template.SerialNumber = big.NewInt(time.Now().UnixNano())
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
		if err != nil {
			t.Fatal(err)
		}
		return der, key
	}
	write := func(name, kind string, der []byte) {
		b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caDER, caKey := make(ca, nil, nil)
	write("ca-cert.pem", "CERTIFICATE", caDER)
	server := &x509.Certificate{Subject: pkix.Name{CommonName: "server"}, DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	serverDER, serverKey := make(server, ca, caKey)
	client := &x509.Certificate{Subject: pkix.Name{CommonName: "client"}, KeyUsage: x509.KeyUsageDigitalSignature}
	clientDER, clientKey := make(client, ca, caKey)
	write("client-cert.pem", "CERTIFICATE", clientDER)
	keyDER, err := x509.MarshalPKCS8PrivateKey(clientKey)
	if err != nil {
		t.Fatal(err)
	}
	write("client-key.pem", "PRIVATE KEY", keyDER)
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(caDER)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{serverDER}, PrivateKey: serverKey}},
		ClientCAs:    pool,
		ClientAuth:   tls.RequireAndVerifyClientCert,
		MinVersion:   tls.VersionTLS13,
	}
}

func TestTLSClients(t *testing.T) {
	dir := t.TempDir()
	cfg := certificates(t, dir)
	s, socket := startServer(t, nbd.HandshakeConfig{TLS: cfg, ForceTLS: true})
	uri := "nbds+unix://localhost/vol?socket=" + socket + "&tls-certificates=" + dir
	if out := run(t, "nbdinfo", "--json", uri); !strings.Contains(out, `"TLS": true`) {
		t.Error(out)
	}
	image := sample(t)
	in, out := filepath.Join(dir, "in"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, image, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "nbdcopy", "--flush", in, uri)
	run(t, "nbdcopy", uri, out)
	if got, err := os.ReadFile(out); err != nil || !bytes.Equal(got, image) {
		t.Errorf("what was copied out differs (%v)", err)
	}
	s.Do(func(e *nbdtest.Engine) {
		if !bytes.Equal(e.Data, image) {
			t.Error("what was copied in differs")
		}
	})
	if out, err := exec.CommandContext(t.Context(), "nbdinfo", unixURI(socket, "vol")).CombinedOutput(); err == nil {
		t.Errorf("a client without TLS was let in: %s", out)
	}
}
