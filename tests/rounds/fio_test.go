// SPDX-License-Identifier: Apache-2.0

//go:build linux

package rounds

import (
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/tests/harness"
)

// fio writes and verifies all the while that the secondary dies and returns. It
// knows nothing of it.
func TestFioRounds(t *testing.T) {
	harness.Need(t, "fio")
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d: repeat with -args -seed %d", seed, seed)
	random := rand.New(rand.NewPCG(seed, 1))
	lab := harness.NewPair(t, harness.Options{Size: size, Intents: intents, Region: "64KiB", Pace: pace})
	fio := exec.Command("fio", "--minimal", "--ioengine=nbd", "--uri="+lab.Alpha.URI(data), "--name=rounds",
		"--rw=randwrite", "--bs=4k", "--iodepth=16", "--size=16M", "--offset=64M", "--loops=3", "--fsync=256",
		"--verify=crc32c", "--verify_async=1", "--verify_fatal=1", "--do_verify=1", "--randseed=7")
	out := make(chan []byte, 1)
	ended := make(chan error, 1)
	go func() {
		b, err := fio.CombinedOutput()
		out <- b
		ended <- err
	}()
	for deaths := 0; ; deaths++ {
		select {
		case err := <-ended:
			if err != nil {
				t.Fatalf("fio, while the secondary died %d times: %v\n%s", deaths, err, <-out)
			}
			if deaths == 0 {
				t.Fatal("fio ended before the secondary died once")
			}
			t.Logf("fio verified what it wrote; the secondary died %d times", deaths)
			lab.WaitPaired(t, lab.Alpha)
			lab.SameDisks(t)
			return
		default:
		}
		harness.Elapse(time.Duration(random.Int64N(int64(200 * time.Millisecond))))
		lab.Beta.Kill(t)
		lab.Alpha.WaitState(t, control.Alone)
		harness.Elapse(time.Duration(random.Int64N(int64(100 * time.Millisecond))))
		lab.Beta.Start(t)
		lab.WaitPaired(t, lab.Alpha)
	}
}
