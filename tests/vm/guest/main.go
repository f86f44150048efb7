// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command guest is the init of a test machine, one static program in three parts.
// The kernel starts it from the initramfs: it loads modules and lays a file system
// in memory over the root, which is read-only, so that a power cut leaves nothing of
// it. Then it is process 1 of that root: it configures the network, unpacks the
// test's files and takes in orphans. And a child of that runs what the test asks for.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

func main() {
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "serve":
		err = serve()
	case os.Args[0] == "/init":
		err = boot()
	default:
		err = first()
	}
	say("%v", err)
	if os.Getpid() == 1 { // nothing can follow: the test sees the machine end
		_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	}
	os.Exit(1)
}

// say writes to the kernel's log, which is on the console.
func say(format string, args ...any) {
	text := fmt.Sprintf("init: "+format+"\n", args...)
	if log, err := os.OpenFile("/dev/kmsg", os.O_WRONLY, 0); err == nil {
		_, _ = log.WriteString(text)
		_ = log.Close()
		return
	}
	_, _ = os.Stderr.WriteString(text)
}

// options are the words of the kernel's command line.
func options() (map[string]string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	words := make(map[string]string)
	for _, word := range strings.Fields(string(line)) {
		key, value, _ := strings.Cut(word, "=")
		words[key] = value
	}
	return words, err
}

// mount mounts, on a directory that it makes.
func mount(source, target, kind string, flags uintptr, data string) error {
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(source, target, kind, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, target, err)
	}
	return nil
}
