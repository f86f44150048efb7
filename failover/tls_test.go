// SPDX-License-Identifier: Apache-2.0

package failover_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"testing"

	. "github.com/twinbd/twinbd/failover"
	"github.com/twinbd/twinbd/failover/failovertest"
)

// key returns a self-signed certificate in that name.
func key(t *testing.T, name string) tls.Certificate {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, public, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: private}
}

// Who has a key asks in its own name only; who has none asks nothing.
func TestServerIdentity(t *testing.T) {
	alpha, stranger := key(t, "a"), key(t, "x")
	config := &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{key(t, "witness")},
		ClientAuth:   tls.RequireAnyClientCert,
	}
	l := listen(t, "127.0.0.1:0")
	serve(t, &Server{
		Register: openRegister(t, failovertest.NewDisk(1)),
		Log:      quiet,
		Accept: func(ctx context.Context, conn net.Conn) (net.Conn, string, error) {
			safe := tls.Server(conn, config)
			if err := safe.HandshakeContext(ctx); err != nil {
				conn.Close()
				return nil, "", err
			}
			peer := safe.ConnectionState().PeerCertificates[0]
			if !bytes.Equal(peer.Raw, alpha.Certificate[0]) {
				conn.Close()
				return nil, "", errors.New("stranger")
			}
			return safe, peer.Subject.CommonName, nil
		},
	}, l)
	for _, c := range []struct {
		name string
		keys []tls.Certificate
		want error
	}{
		{"a", []tls.Certificate{alpha}, nil},
		{"b", []tls.Certificate{alpha}, ErrIdentity},
	} {
		d := tls.Dialer{Config: &tls.Config{Certificates: c.keys, InsecureSkipVerify: true}}
		client := node(t, c.name, at(l.Addr().String()), func(config *ClientConfig) { config.Dial = d.DialContext })
		if _, err := client.Read(t.Context(), Query{Service: "s", Timeout: timeout}); !errors.Is(err, c.want) {
			t.Errorf("%s: read: %v, want %v", c.name, err, c.want)
		}
		q := Request{Service: "s", Holder: c.name, Mode: Alone, Operator: true, Token: NewToken(), Timeout: timeout}
		if _, err := client.Change(t.Context(), q); !errors.Is(err, c.want) {
			t.Errorf("%s: change: %v, want %v", c.name, err, c.want)
		}
	}
	for name, dial := range map[string]func(*ClientConfig){
		"without a key": func(c *ClientConfig) {
			c.Dial = (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true}}).DialContext
		},
		"with an unknown key": func(c *ClientConfig) {
			c.Dial = (&tls.Dialer{Config: &tls.Config{Certificates: []tls.Certificate{stranger}, InsecureSkipVerify: true}}).DialContext
		},
		"without TLS": func(*ClientConfig) {},
	} {
		client := node(t, "a", at(l.Addr().String()), dial)
		if answer, err := client.Read(t.Context(), Query{Service: "s", Timeout: timeout}); err == nil {
			t.Errorf("%s: %+v", name, answer)
		}
	}
}
