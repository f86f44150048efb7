// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// Keys is what one machine knows: its own key, and everybody's public key. It is
// not changed after Load; its methods may be called from anywhere.
type Keys struct {
	dir  string
	self string
	own  tls.Certificate
	pins map[string]ed25519.PublicKey
}

// Load reads the private key of self and all certificates in dir. It refuses a
// private key that others could have read.
func Load(dir, self string) (*Keys, error) {
	own, err := loadOwn(dir, self)
	if err != nil {
		return nil, err
	}
	k := &Keys{dir: dir, self: self, own: own, pins: map[string]ed25519.PublicKey{}}
	files, err := filepath.Glob(filepath.Join(escapeGlob(dir), "*.crt"))
	if err != nil {
		return nil, fmt.Errorf("list certificates in %s: %w", dir, err)
	}
	for _, file := range files {
		_, public, err := readCertificate(file)
		if err != nil {
			return nil, err
		}
		k.pins[strings.TrimSuffix(filepath.Base(file), ".crt")] = public
	}
	return k, nil
}

// Self is the name under which Load was called, and "" for nil Keys.
func (k *Keys) Self() string {
	if k == nil {
		return ""
	}
	return k.self
}

// Check says whether there is a certificate for each of the names, so that a
// machine with half a key directory says so at its start.
func (k *Keys) Check(names ...string) error {
	if k == nil {
		return nil
	}
	for _, name := range names {
		if _, ok := k.pins[name]; !ok {
			return missing(certificateFile(k.dir, name))
		}
	}
	return nil
}

func loadOwn(dir, self string) (tls.Certificate, error) {
	raw, public, err := readCertificate(certificateFile(dir, self))
	if err != nil {
		return tls.Certificate{}, err
	}
	private, err := readKey(keyFile(dir, self))
	if err != nil {
		return tls.Certificate{}, err
	}
	if !public.Equal(private.Public()) {
		return tls.Certificate{}, fmt.Errorf("%s is not the key of %s; hint: copy both from the directory made by one `twinbd init`",
			keyFile(dir, self), certificateFile(dir, self))
	}
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: private}, nil
}

func readKey(file string) (ed25519.PrivateKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, openError(file, err)
	}
	defer f.Close()
	// Of the open file, so that it is the one that is read.
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if err := checkPrivate(file, info); err != nil {
		return nil, err
	}
	data, err := readPEM(f, "PRIVATE KEY")
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", file, err)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(data)
	if err != nil {
		return nil, fmt.Errorf("read key %s: %w", file, err)
	}
	private, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read key %s: is a %T; hint: only keys made by `twinbd init` are taken", file, parsed)
	}
	return private, nil
}

func readCertificate(file string) ([]byte, ed25519.PublicKey, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, nil, openError(file, err)
	}
	defer f.Close()
	raw, err := readPEM(f, "CERTIFICATE")
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate %s: %w", file, err)
	}
	certificate, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, nil, fmt.Errorf("read certificate %s: %w", file, err)
	}
	public, ok := certificate.PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, nil, fmt.Errorf("read certificate %s: is of a %T; hint: only keys made by `twinbd init` are taken", file, certificate.PublicKey)
	}
	return raw, public, nil
}

// maxPEM is more than any file of ours has, in bytes.
const maxPEM = 64 << 10

func readPEM(r io.Reader, kind string) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxPEM))
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("has no PEM block %q", kind)
	}
	return block.Bytes, nil
}

func openError(file string, err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return missing(file)
	}
	return fmt.Errorf("read keys: %w", err)
}

func missing(file string) error {
	return fmt.Errorf("%s is missing; hint: make keys with `twinbd init` on one machine, then copy the directory to the others", file)
}

// escapeGlob keeps a directory's name from being taken as a pattern. Windows has
// no escape; there the names that would need one are rare enough.
func escapeGlob(dir string) string {
	if os.PathSeparator == '\\' {
		return dir
	}
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(dir)
}
