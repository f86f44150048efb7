// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import (
	"fmt"
	"strings"
	"testing"
)

// fio writes blocks of random lengths at random places of the device, many at a time,
// and reads each back against its checksum; then the other node has the same. Between
// them parts are discarded and zeroed.
func TestFio(t *testing.T) {
	const half = 16 << 20
	c := newCluster(t, options{size: 2 * half, volume: deviceLine})
	serves, next := c.alpha, c.beta
	low := c.newJob(0, half)
	low.run(t, serves)

	// What fio wrote in one part reads as zeroes now; what is discarded elsewhere reads
	// as anything, the same on both.
	const zeroes, length = 4 << 20, 2 << 20
	serves.shell(t, fmt.Sprintf("blkdiscard -z -o %d -l %d /dev/nbd0", zeroes, length))
	trim := c.newJob(half, half)
	trim.run(t, serves, "--rw=randtrim", "--io_size=4m", "--verify=0")
	high := c.newJob(half, half)
	high.run(t, serves, "--verify_backlog=16") // reads while it writes

	serves.must(t, "twinbd", "switch", serviceName)
	c.waitPair(t, next)
	high.check(t, next)
	next.shell(t, fmt.Sprintf("dd if=/dev/nbd0 bs=1M skip=%d count=%d status=none | cmp -n %d - /dev/zero", zeroes>>20, length>>20, length))
	low = c.newJob(0, half)
	low.run(t, next)
	high.check(t, next)
	low.check(t, next)
	next.must(t, "twinbd", "stop", serviceName, "--all")
	c.sameDrives(t)
	for _, n := range c.nodes() {
		n.checkKernel(t)
	}
}

// job is what fio does to a part of the device. Everything follows from its seed.
type job struct {
	cluster        *cluster
	offset, length int64
	seed           uint32
	depth          int
}

func (c *cluster) newJob(offset, length int64) *job {
	return &job{c, offset, length, c.random.Uint32(), 1 << c.random.IntN(6)}
}

func (j *job) run(t testing.TB, n *node, more ...string) {
	t.Helper()
	out := n.run(t, append([]string{
		"fio", "--name=job", "--filename=/dev/nbd0", "--direct=1", "--ioengine=libaio", "--rw=randwrite", "--bsrange=4k-256k",
		fmt.Sprintf("--offset=%d", j.offset), fmt.Sprintf("--size=%d", j.length),
		fmt.Sprintf("--randseed=%d", j.seed), fmt.Sprintf("--iodepth=%d", j.depth),
		"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0",
	}, more...)...)
	if out.Code != 0 || !strings.Contains(out.Stdout, "err= 0") {
		t.Fatalf("fio on %s with seed %d, %d at a time, %v: %s", n.name, j.seed, j.depth, more, out)
	}
}

// check reads what the job has left, and writes nothing.
func (j *job) check(t testing.TB, n *node) {
	t.Helper()
	j.run(t, n, "--verify_only=1")
}
