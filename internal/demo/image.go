// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/twinbd/twinbd/internal/block"
)

// image is what is copied into the volume.
type image struct {
	path string
	size int64  // bytes
	what string // for people
	ext4 bool
}

// prepareImage takes the user's image, or builds one in the demo's directory.
func (d *demo) prepareImage(ctx context.Context) (*image, error) {
	if d.Image != "" {
		size, err := imageSize(d.Image)
		if err != nil {
			return nil, fmt.Errorf("read image: %w", err)
		}
		return &image{path: d.Image, size: size, what: d.Image}, nil
	}
	t, err := d.plantTree(ctx)
	if err != nil {
		return nil, err
	}
	tool, err := findTool("mke2fs")
	if err != nil {
		d.story.say("mke2fs is not there: the image is a tar archive, not a file system")
		return archive(t, filepath.Join(d.dir, "image.tar"))
	}
	return format(ctx, tool, t, filepath.Join(d.dir, "image.ext4"), d.layout.image)
}

// format makes an ext4 file system that fills size bytes and holds the tree.
func format(ctx context.Context, tool string, t *tree, path string, size int64) (*image, error) {
	blocks := strconv.FormatInt(size/block.Size, 10)
	err := run(ctx, tool, "-q", "-F", "-t", "ext4", "-b", strconv.Itoa(block.Size), "-d", t.root, path, blocks)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	return &image{path: path, size: size, what: "an ext4 file system with " + t.what(), ext4: true}, nil
}

// archive makes a tar file of the tree, up to a whole block.
func archive(t *tree, path string) (img *image, err error) {
	f, err := os.Create(path)
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := tar.NewWriter(f)
	if err := errors.Join(w.AddFS(os.DirFS(t.root)), w.Close()); err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("build image: %w", err)
	}
	size := (info.Size() + block.Size - 1) / block.Size * block.Size
	if err := f.Truncate(size); err != nil { // zeroes behind its end belong to the format
		return nil, fmt.Errorf("build image: %w", err)
	}
	return &image{path: path, size: size, what: "a tar archive of " + t.what()}, nil
}

// checkFileSystem lets e2fsck look at both disks, where there is one.
func (d *demo) checkFileSystem(ctx context.Context) error {
	tool, err := findTool("e2fsck")
	if err != nil || !d.image.ext4 {
		return nil
	}
	for _, n := range []*member{d.pair.primary, d.pair.secondary} {
		if err := run(ctx, tool, "-fn", n.disk()); err != nil {
			return fmt.Errorf("file system on the disk of %s: %w", n.name, err)
		}
	}
	d.story.say("the file system on both disks is clean (e2fsck -fn)")
	return nil
}

// findTool also looks where a user's PATH often does not lead.
func findTool(name string) (string, error) {
	path, err := exec.LookPath(name)
	for _, dir := range []string{"/usr/sbin", "/sbin", "/usr/local/sbin"} {
		if err == nil {
			break
		}
		path, err = exec.LookPath(filepath.Join(dir, name))
	}
	return path, err
}

// run runs another program to its end. What it said is in the error.
func run(ctx context.Context, argv ...string) error {
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(argv[0]), err, strings.Join(strings.Fields(string(out)), " "))
	}
	return nil
}
