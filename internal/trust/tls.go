// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ed25519"
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
)

// Server is what a listener uses that the named ones may connect to. It is nil
// for nil Keys.
func (k *Keys) Server(allowed ...string) *tls.Config {
	if k == nil {
		return nil
	}
	allowed = slices.Clone(allowed)
	config := k.config(func(state tls.ConnectionState) error { return k.admit(state, allowed) })
	config.ClientAuth = tls.RequireAnyClientCert // admit compares it with the pins
	return config
}

// Client is what is used to connect to the expected one. It is nil for nil Keys.
func (k *Keys) Client(expected string) *tls.Config {
	if k == nil {
		return nil
	}
	config := k.config(func(state tls.ConnectionState) error { return k.recognise(state, expected) })
	config.ServerName = expected
	config.InsecureSkipVerify = true // recognise compares the pin instead
	return config
}

// config is what both sides share. TLS itself shows that the other side has the
// private half of what it presents; verify decides whether that is enough.
func (k *Keys) config(verify func(tls.ConnectionState) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{k.own},
		SessionTicketsDisabled: true, // each connection shows its key anew
		VerifyConnection:       verify,
	}
}

// admit holds that who connected has the key of one of the allowed names.
func (k *Keys) admit(state tls.ConnectionState, allowed []string) error {
	name := k.PeerName(state)
	if slices.Contains(allowed, name) {
		return nil
	}
	expected := strings.Join(allowed, " or ")
	if name != "" {
		return fmt.Errorf("%s may not connect here; expected %s", name, expected)
	}
	// What it calls itself decides nothing; it tells a machine with other keys
	// from a stranger.
	claimed := claimedName(state)
	if !slices.Contains(allowed, claimed) {
		return fmt.Errorf("an unknown machine connected, which calls itself %.80q; expected %s", claimed, expected)
	}
	return k.wrongKey(claimed)
}

// recognise holds that who answered has the key of the expected name.
func (k *Keys) recognise(state tls.ConnectionState, expected string) error {
	switch name := k.PeerName(state); name {
	case expected:
		return nil
	case "":
		return k.wrongKey(expected)
	default:
		return fmt.Errorf("%s answered in place of %s; hint: compare the addresses in the configuration with those of the machines", name, expected)
	}
}

func (k *Keys) wrongKey(name string) error {
	if err := k.Check(name); err != nil {
		return err // there is nothing to compare with
	}
	return &WrongKey{Name: name, File: certificateFile(k.dir, name)}
}

// PeerName is the name whose pinned key the other side has, or "" when there is
// none.
func (k *Keys) PeerName(state tls.ConnectionState) string {
	if k == nil || len(state.PeerCertificates) == 0 {
		return ""
	}
	public, ok := state.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return ""
	}
	for name, pin := range k.pins {
		if pin.Equal(public) {
			return name
		}
	}
	return ""
}

func claimedName(state tls.ConnectionState) string {
	if len(state.PeerCertificates) == 0 {
		return ""
	}
	return state.PeerCertificates[0].Subject.CommonName
}
