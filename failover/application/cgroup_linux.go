// SPDX-License-Identifier: Apache-2.0

package application

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// FindCgroup returns the directory of the cgroup v2 that this process is in:
// below it is a place for RunnerConfig.Cgroup.
func FindCgroup() (string, error) {
	mounts, err := readMounts()
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", fmt.Errorf("find own cgroup: %w", err)
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		path, ok := strings.CutPrefix(lines.Text(), "0::")
		if !ok {
			continue
		}
		for _, m := range mounts {
			below, err := filepath.Rel(m.root, path)
			if m.kind == "cgroup2" && err == nil && !strings.HasPrefix(below, "..") {
				return filepath.Join(m.at, below), nil
			}
		}
	}
	return "", errors.New("find own cgroup: no cgroup v2 is mounted")
}

// cgroup is the herd of one cgroup and those below it. Processes are born into
// it and can leave it only as root, by name.
type cgroup string

func (c cgroup) processes() ([]Process, error) {
	var found []Process
	err := filepath.WalkDir(string(c), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil || !entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(path, "cgroup.procs"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENODEV) {
			return err
		}
		for _, line := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(line); err == nil {
				if p, _, ok := look(pid); ok {
					found = append(found, p)
				}
			}
		}
		return nil
	})
	return found, err
}

func (c cgroup) has(pid int) bool {
	processes, err := c.processes()
	return err == nil && slices.ContainsFunc(processes, func(p Process) bool { return p.Pid == pid })
}

// kill hits all at once, also what is just being forked.
func (c cgroup) kill() error {
	f, err := os.OpenFile(filepath.Join(string(c), "cgroup.kill"), os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.WriteString("1")
	return errors.Join(err, f.Close())
}

// prepare makes the cgroup of a service, with one for each kind of command, and
// proves that a process can be born there.
func (c cgroup) prepare() error {
	for _, dir := range []cgroup{c, c.of(passing), c.of(application), c.of(mounting)} {
		if err := os.Mkdir(string(dir), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	var s unix.Statfs_t
	if err := unix.Statfs(string(c), &s); err != nil {
		return fmt.Errorf("look at %s: %w", c, err)
	}
	if s.Type != unix.CGROUP2_SUPER_MAGIC {
		return fmt.Errorf("%s is not in a cgroup v2", c)
	}
	if _, err := os.Stat(filepath.Join(string(c), "cgroup.kill")); err != nil {
		return fmt.Errorf("the kernel is older than 5.14: %w", err)
	}
	dir, err := os.Open(string(c.of(passing)))
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd := exec.Command("/bin/sh", "-c", ":")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("start a process in %s: %w", c, err)
	}
	return nil
}

func (c cgroup) of(k kind) cgroup { return cgroup(filepath.Join(string(c), string(k))) }

// remove succeeds when nothing lives there.
func (c cgroup) remove() error { return unix.Rmdir(string(c)) }
