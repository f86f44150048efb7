// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Init makes a key and a certificate for every name in dir, which it creates
// when it is not there. It overwrites nothing: when dir has a key or certificate
// of any of the names, nothing is made and the error says so.
func Init(dir string, names []string) error {
	for _, name := range names {
		for _, file := range []string{keyFile(dir, name), certificateFile(dir, name)} {
			if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
				if err != nil {
					return fmt.Errorf("look for keys: %w", err)
				}
				return fmt.Errorf("keys exist in %s (%s); hint: keep them, or move the directory away if all machines shall get new keys", dir, filepath.Base(file))
			}
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make key directory: %w", err)
	}
	var made []string
	for _, name := range names {
		files, err := initOne(dir, name)
		made = append(made, files...)
		if err != nil {
			for _, file := range made {
				os.Remove(file)
			}
			return err
		}
	}
	return nil
}

// initOne returns the files that it made, also when it returns an error.
func initOne(dir, name string) (made []string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make key of %s: %w", name, err)
	}
	keyBytes, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, fmt.Errorf("make key of %s: %w", name, err)
	}
	certificate, err := selfSigned(name, public, private)
	if err != nil {
		return nil, fmt.Errorf("make certificate of %s: %w", name, err)
	}
	if err := writeNew(keyFile(dir, name), 0o600, "PRIVATE KEY", keyBytes); err != nil {
		return nil, fmt.Errorf("write key of %s: %w", name, err)
	}
	made = append(made, keyFile(dir, name))
	if err := writeNew(certificateFile(dir, name), 0o644, "CERTIFICATE", certificate); err != nil {
		return made, fmt.Errorf("write certificate of %s: %w", name, err)
	}
	return append(made, certificateFile(dir, name)), nil
}

func selfSigned(name string, public ed25519.PublicKey, private ed25519.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name},
		DNSNames:     []string{name},
		// RFC 5280, 4.1.2.5: this end means that there is none.
		NotBefore:             time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	return x509.CreateCertificate(rand.Reader, template, template, public, private)
}

// writeNew makes a file that is on stable storage when it returns nil, and is
// not there when it returns an error.
func writeNew(file string, mode fs.FileMode, kind string, data []byte) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	err = pem.Encode(f, &pem.Block{Type: kind, Bytes: data})
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		os.Remove(file)
	}
	return err
}

func keyFile(dir, name string) string         { return filepath.Join(dir, name+".key") }
func certificateFile(dir, name string) string { return filepath.Join(dir, name+".crt") }
