// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// selfPath is where this program is below the root.
const selfPath = "/run/init/guest"

// boot is what happens in the initramfs. It does not return unless it fails.
func boot() error {
	err := errors.Join(mount("proc", "/proc", "proc", 0, ""),
		mount("sysfs", "/sys", "sysfs", 0, ""),
		mount("devtmpfs", "/dev", "devtmpfs", 0, ""))
	if err != nil {
		return err
	}
	if err := loadModules(); err != nil {
		return err
	}
	if err := os.WriteFile("/sys/devices/system/cpu/cpu1/online", []byte("1"), 0); err != nil {
		return err
	}
	if err := awaitFile("/dev/vda"); err != nil {
		return err
	}
	if err := mount("/dev/vda", "/below", "ext4", syscall.MS_RDONLY, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/above", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir("/above/upper", 0o755), os.Mkdir("/above/work", 0o755)); err != nil {
		return err
	}
	if err := mount("overlay", "/root", "overlay", 0, "lowerdir=/below,upperdir=/above/upper,workdir=/above/work"); err != nil {
		return err
	}
	if err := mount("tmpfs", "/root/run", "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	self, err := os.ReadFile("/init")
	if err != nil {
		return err
	}
	if err := errors.Join(os.Mkdir("/root/run/init", 0o755), os.WriteFile("/root"+selfPath, self, 0o755)); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := mount(dir, "/root"+dir, "", syscall.MS_MOVE, ""); err != nil {
			return err
		}
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := errors.Join(syscall.Chroot("."), os.Chdir("/")); err != nil {
		return err
	}
	return fmt.Errorf("go on in the root: %w", syscall.Exec(selfPath, []string{selfPath}, environment))
}

// loadModules loads the kernel's modules in the order of their list.
func loadModules() error {
	list, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(string(list)) {
		if err := loadModule("/modules/"+name, moduleOptions[name]); err != nil {
			return fmt.Errorf("load %s: %w", name, err)
		}
	}
	return nil
}

var moduleOptions = map[string]string{"nbd.ko": "nbds_max=4"}

func loadModule(path, options string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), options, 0); !errors.Is(err, syscall.EEXIST) {
		return err
	}
	return nil
}

// awaitFile waits until the kernel has found what shows as a file.
func awaitFile(path string) error {
	for began := time.Now(); time.Since(began) < time.Minute; time.Sleep(5 * time.Millisecond) {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return fmt.Errorf("%s has not come", path)
}
