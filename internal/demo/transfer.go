// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"sync"

	"github.com/twinbd/twinbd/internal/block"
	"github.com/twinbd/twinbd/nbd"
)

// transfer copies an image in and out: nbdcopy where it is installed, which is
// somebody else's client, else the project's own.
type transfer struct {
	nbdcopy string // path, or empty
}

func newTransfer() transfer {
	path, _ := exec.LookPath("nbdcopy") // not found is a path too: none
	return transfer{path}
}

func (t transfer) String() string {
	if t.nbdcopy == "" {
		return "this project's client (nbdcopy is not there)"
	}
	return "nbdcopy"
}

// in copies a file to an export and flushes it.
func (t transfer) in(ctx context.Context, img *image, uri string) error {
	if t.nbdcopy != "" {
		return run(ctx, t.nbdcopy, "--flush", img.path, uri)
	}
	client, err := nbd.Dial(ctx, uri, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	f, err := os.Open(img.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := pieces(ctx, img.size, func(p []byte, offset int64) error {
		if _, err := io.ReadFull(io.NewSectionReader(f, offset, int64(len(p))), p); err != nil {
			return err
		}
		if isZero(p) {
			return client.WriteZeroes(offset, int64(len(p)), 0)
		}
		return client.WriteAt(p, offset, 0)
	}); err != nil {
		return err
	}
	return client.Flush()
}

// sum reads the first size bytes of an export and returns their SHA-256.
func (t transfer) sum(ctx context.Context, uri string, size int64) (string, error) {
	h := sha256.New()
	if t.nbdcopy != "" {
		cmd := exec.CommandContext(ctx, t.nbdcopy, uri, "-")
		var said bytes.Buffer
		cmd.Stdout, cmd.Stderr = &head{w: h, left: size}, &said
		if err := cmd.Run(); err != nil {
			return "", fmt.Errorf("nbdcopy: %w: %s", err, bytes.TrimSpace(said.Bytes()))
		}
		return hex.EncodeToString(h.Sum(nil)), nil
	}
	client, err := nbd.Dial(ctx, uri, nil)
	if err != nil {
		return "", err
	}
	defer client.Close()
	buffer := make([]byte, pieceSize)
	for offset := int64(0); offset < size && ctx.Err() == nil; offset += pieceSize {
		p := buffer[:min(pieceSize, size-offset)]
		if err := client.ReadAt(p, offset); err != nil {
			return "", err
		}
		h.Write(p)
	}
	return hex.EncodeToString(h.Sum(nil)), ctx.Err()
}

// sumFile returns the SHA-256 of the first size bytes of a file.
func sumFile(path string, size int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(h, f, size); err != nil {
		return "", fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// dataBytes is the length of all blocks of an image that are not zero.
func dataBytes(img *image) (int64, error) {
	f, err := os.Open(img.path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var total int64
	buffer := make([]byte, pieceSize)
	for left := img.size; left > 0; {
		n, err := io.ReadFull(f, buffer[:min(pieceSize, left)])
		if err != nil {
			return 0, err
		}
		for p := range slices.Chunk(buffer[:n], block.Size) {
			if !isZero(p) {
				total += int64(len(p))
			}
		}
		left -= int64(n)
	}
	return total, nil
}

const (
	pieceSize = 1 << 20 // bytes
	pieceMany = 8       // under way at once
)

// pieces calls f for every piece of size bytes, several at a time, each with a
// buffer of the piece's length.
func pieces(ctx context.Context, size int64, f func(p []byte, offset int64) error) error {
	var wg sync.WaitGroup
	errs := make([]error, pieceMany)
	for i := range errs {
		wg.Go(func() {
			buffer := make([]byte, pieceSize)
			for offset := int64(i) * pieceSize; offset < size && errs[i] == nil; offset += pieceMany * pieceSize {
				if errs[i] = ctx.Err(); errs[i] == nil {
					errs[i] = f(buffer[:min(pieceSize, size-offset)], offset)
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// head passes on the first bytes and swallows the rest.
type head struct {
	w    io.Writer
	left int64
}

func (h *head) Write(p []byte) (int, error) {
	n, err := h.w.Write(p[:min(int64(len(p)), h.left)])
	h.left -= int64(n)
	if err != nil {
		return n, err
	}
	return len(p), nil
}

func isZero(p []byte) bool { return len(p) > 0 && p[0] == 0 && bytes.Equal(p[1:], p[:len(p)-1]) }
