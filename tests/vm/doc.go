// SPDX-License-Identifier: Apache-2.0

// Package vm shows twinbd on real kernels: two nodes, each a machine of its own
// with Debian's cloud kernel under QEMU, and beside them what watches them.
//
//	  alpha .1      beta .2       outside .3: the witness, the client
//	     |             |             |        (a network namespace of this kernel)
//	     '-------------+-------------'
//	10.66.0.0/24, a switch in the test; the virtual address is 10.66.0.100
//
// A machine's root is read-only, with a file system in memory over it. What it must
// keep is on drives: NBD servers in the test with a volatile write cache (package
// drive), which QEMU shows it as virtio disks. A power cut is the end of QEMU and the
// loss of what the drives had not been told to flush: both are needed, because
// QEMU's own disks leave to the kernel below what the machine never flushed.
//
// A freeze comes in two kinds. Pause stops the virtual processors: no time passes in
// the machine, so its lease is as young as before. Stop stops the process: on
// its return the machine's clocks have gone on.
//
// Commands go over a serial port to a small init of our own (package guest), which
// works with every cable cut. The switch drops frames from one port to another, one
// way and silently.
//
// QEMU emulates (user code is some 30 times slower), because a hypervisor inside one
// is rarely to be had; limits are wide for that reason. The tests need root and
// minutes: `make test-vm` installs what they need and runs them. The first run builds
// the root from Debian's packages, and keeps it in the user's cache directory.
// Nothing is left behind, also when a test is killed: the machines die with the
// thread that started them.
package vm
