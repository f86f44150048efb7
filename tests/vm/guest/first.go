// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"
)

var environment = []string{"PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}

// filesDevice has the test's files, as a tar archive.
const filesDevice = "/dev/vdb"

// first is process 1 of the root. It does not return unless something fails.
func first() error {
	words, err := options()
	if err != nil {
		return err
	}
	err = errors.Join(mount("tmpfs", "/dev/shm", "tmpfs", 0, "mode=1777"),
		mount("tmpfs", "/tmp", "tmpfs", 0, "mode=1777"),
		mount("devpts", "/dev/pts", "devpts", 0, ""),
		syscall.Sethostname([]byte(words["guest.name"])))
	if err != nil {
		return err
	}
	for _, argv := range [][]string{
		{"ip", "link", "set", "lo", "up"},
		{"ip", "address", "add", words["guest.address"], "dev", "eth0"},
		{"ip", "link", "set", "eth0", "up"},
		{"tar", "--extract", "--directory=/", "--no-same-owner", "--file=" + filesDevice},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			return fmt.Errorf("%v: %w: %s", argv, err, out)
		}
	}
	// A child serves, so that taking in orphans here never takes its own children.
	server, err := os.StartProcess(selfPath, []string{selfPath, "serve"}, &os.ProcAttr{
		Env: environment, Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return err
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == nil && pid == server.Pid {
			return fmt.Errorf("the server has ended: %v", status)
		}
		if err != nil && !errors.Is(err, syscall.EINTR) {
			return fmt.Errorf("wait for orphans: %w", err)
		}
	}
}
