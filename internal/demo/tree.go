// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// tree is a directory of real files that becomes an image.
type tree struct {
	root   string
	budget int64 // bytes that still fit
	parts  []string
}

func (t *tree) what() string { return strings.Join(t.parts, ", ") }

// plantTree gathers what the image is to hold: this project's files when the
// demo is run among them, else generated ones; and a database where there is
// one to make.
func (d *demo) plantTree(ctx context.Context) (*tree, error) {
	// A quarter is for the file system itself.
	t := &tree{root: filepath.Join(d.dir, "tree"), budget: d.layout.image * 3 / 4}
	if err := os.Mkdir(t.root, 0o700); err != nil {
		return nil, fmt.Errorf("gather files: %w", err)
	}
	var err error
	if project := findProject(); project != "" {
		err = t.copyProject(project)
	} else {
		err = t.generate()
	}
	if err != nil {
		return nil, fmt.Errorf("gather files: %w", err)
	}
	if err := t.copyProgram(d.Binary); err != nil {
		return nil, fmt.Errorf("gather files: %w", err)
	}
	if why := t.initdb(ctx); why != "" {
		d.story.say("no PostgreSQL data directory in the image: %s", why)
	}
	return t, nil
}

const modulePath = "github.com/twinbd/twinbd"

// findProject is the root of this project's sources that the working directory
// lies in, or "".
func findProject() string {
	dir, err := os.Getwd()
	for err == nil {
		text, readErr := os.ReadFile(filepath.Join(dir, "go.mod"))
		if readErr == nil && bytes.HasPrefix(text, []byte("module "+modulePath+"\n")) {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return ""
		}
		dir = parent
	}
	return ""
}

// copyProject copies what fits of the project's files, without those of git,
// what was built, and what this demo itself makes.
func (t *tree) copyProject(from string) error {
	files, before := 0, t.budget
	err := filepath.WalkDir(from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return passOver(err)
		}
		name, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		to := filepath.Join(t.root, "twinbd", name)
		switch {
		case entry.IsDir() && (entry.Name() == ".git" || name == "bin" || path == filepath.Dir(t.root)):
			return filepath.SkipDir
		case entry.IsDir():
			return os.MkdirAll(to, 0o755)
		case !entry.Type().IsRegular():
			return nil
		}
		copied, err := t.copyFile(path, to)
		files += copied
		return passOver(err)
	})
	t.parts = append(t.parts, fmt.Sprintf("%d files of this project (%s)", files, bytesText(before-t.budget)))
	return err
}

// passOver forgives a file that somebody has just removed or keeps for himself.
func passOver(err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil
	}
	return err
}

// copyFile copies a file if it fits, and returns how many it copied.
func (t *tree) copyFile(from, to string) (int, error) {
	info, err := os.Stat(from)
	if err != nil || info.Size() > t.budget {
		return 0, err
	}
	text, err := os.ReadFile(from)
	if err != nil {
		return 0, err
	}
	t.budget -= int64(len(text))
	return 1, os.WriteFile(to, text, info.Mode().Perm())
}

// copyProgram adds this very program, when it fits: some MiB that do not
// compress to nothing.
func (t *tree) copyProgram(path string) error {
	before := t.budget
	copied, err := t.copyFile(path, filepath.Join(t.root, "program"))
	if copied > 0 {
		t.parts = append(t.parts, fmt.Sprintf("this program (%s)", bytesText(before-t.budget)))
	}
	return err
}

// generate makes files of many sizes, half text, half noise.
func (t *tree) generate() error {
	const directories, filesEach = 8, 24
	random := rand.New(rand.NewPCG(1, 2)) // the same files on every machine
	var total int64
	for i := range directories {
		dir := filepath.Join(t.root, fmt.Sprintf("directory-%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		for j := range filesEach {
			text := make([]byte, 1+random.IntN(64<<10))
			for k := range text {
				text[k] = byte(random.Uint32())
				if j%2 == 0 {
					text[k] = 'a' + text[k]%26
				}
			}
			total += int64(len(text))
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("file-%d", j)), text, 0o644); err != nil {
				return err
			}
		}
	}
	t.budget -= total
	t.parts = append(t.parts, fmt.Sprintf("%d generated files (%s)", directories*filesEach, bytesText(total)))
	return nil
}

// databaseSize is more than an empty PostgreSQL data directory takes, in bytes.
const databaseSize = 64 << 20

// initdb adds a PostgreSQL data directory, or says why not.
func (t *tree) initdb(ctx context.Context) (why string) {
	tool := findInitdb()
	switch {
	case tool == "":
		return "initdb is not there"
	case os.Getuid() == 0:
		return "initdb does not run as root"
	case t.budget < databaseSize:
		return "it would not fit; say --size 256MiB or more"
	}
	data := filepath.Join(t.root, "pgdata")
	if err := run(ctx, tool, "--no-sync", "-A", "trust", "-U", "postgres", "-D", data); err != nil {
		os.RemoveAll(data)
		return err.Error()
	}
	t.parts = append(t.parts, "a PostgreSQL data directory")
	return ""
}

// findInitdb also looks where distributions keep it outside of PATH.
func findInitdb() string {
	if path, err := exec.LookPath("initdb"); err == nil {
		return path
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // the pattern is right
	if len(found) == 0 {
		return ""
	}
	return found[len(found)-1]
}
