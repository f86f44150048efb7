// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twinbd/twinbd/internal/block"
)

// pong answers each message of size bytes with a reply of 16, and allocates
// nothing: what the secondary of a mirror does with a write.
type pong struct {
	room  []byte
	size  int
	have  int
	reply []byte
	out   [1][]byte
	task  block.Task
	disks *Disks // nil: none
}

func newPong(size int) *pong {
	return &pong{room: make([]byte, 1<<20), size: size, reply: make([]byte, 1<<16)}
}

func (p *pong) Room() []byte { return p.room }

func (p *pong) Received(n int) error {
	p.have += n
	for ; p.have >= p.size; p.have -= p.size {
		if p.disks == nil {
			p.answer()
			continue
		}
		p.task.Op, p.task.Length, p.task.Data = block.Write, int64(p.size), p.room[:p.size]
		p.disks.Do(&p.task)
	}
	return nil
}

func (p *pong) answer() { p.out[0] = p.reply[:len(p.out[0])+16] }

func (p *pong) Output() [][]byte {
	if len(p.out[0]) == 0 {
		return nil
	}
	return p.out[:]
}

func (p *pong) Sent(n int)   { p.out[0] = p.out[0][n:] }
func (p *pong) Closed(error) {}

// trip is one message and its answer, over a connection that a goroutine reads.
type trip struct {
	conn    net.Conn
	message []byte
	answer  [16]byte
}

func (c *trip) once(t testing.TB) {
	if _, err := c.conn.Write(c.message); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c.conn, c.answer[:]); err != nil {
		t.Fatal(err)
	}
}

// startPong returns a client of a loop that answers, with or without a disk.
func startPong(t testing.TB, o Options, size int, pair func(testing.TB) (net.Conn, net.Conn), disk block.Disk) *trip {
	t.Helper()
	client, server := pair(t)
	l := start(t, o, &idleCore{})
	p := newPong(size)
	if disk != nil {
		on(t, l, func() { p.disks = NewDisks(l, disk, nil, DiskOptions{}, func(*block.Task) { p.answer() }) })
		t.Cleanup(func() { on(t, l, func() { _ = p.disks.Close() }) })
	}
	add(t, l, server, p)
	return &trip{conn: client, message: make([]byte, size)}
}

// null is a disk that takes everything at once.
type null struct{}

func (null) Size() int64                         { return 1 << 30 }
func (null) ReadAt([]byte, int64) error          { return nil }
func (null) WriteAt([]byte, int64) error         { return nil }
func (null) Zero(int64, int64, bool) error       { return nil }
func (null) Sync() error                         { return nil }
func (null) Close() error                        { return nil }
func (null) TryReadAt([]byte, int64) error       { return nil }
func (null) WriteVectorAt([][]byte, int64) error { return nil }

// A round trip through a real socket, a turn and a disk allocates nothing.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	for _, k := range kinds {
		for _, tr := range transports[:3] {
			t.Run(k.name+"/"+tr.name, func(t *testing.T) {
				c := startPong(t, k.o, 4096, tr.pair, null{})
				for range 100 {
					c.once(t)
				}
				// The portable clock and timer are the runtime's; they may
				// allocate now and then, the turn itself does not.
				if n := testing.AllocsPerRun(1000, func() { c.once(t) }); n > 0 {
					t.Errorf("%v allocations per round trip", n)
				}
			})
		}
	}
}

// BenchmarkRoundTrip has its client in another process, as in life: within one
// the scheduler would put both sides on one thread or not, as it likes.
func BenchmarkRoundTrip(b *testing.B) {
	for _, k := range kinds {
		for _, network := range []string{"unix", "tcp"} {
			b.Run(fmt.Sprintf("%s/%s", k.name, network), func(b *testing.B) {
				var far *exec.Cmd
				var orders io.Writer
				var reports io.Reader
				startPong(b, k.o, 4096, func(testing.TB) (net.Conn, net.Conn) {
					ln := listen(b, network)
					defer ln.Close()
					far = exec.Command(os.Args[0])
					far.Env = append(os.Environ(), farClient+"="+network+" "+ln.Addr().String())
					far.Stderr = os.Stderr
					in, err := far.StdinPipe()
					out, err2 := far.StdoutPipe()
					if err := errors.Join(err, err2, far.Start()); err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { in.Close(); _ = far.Wait() })
					orders, reports = in, out
					conn, err := ln.Accept()
					if err != nil {
						b.Fatal(err)
					}
					return nil, conn
				}, null{})
				b.ReportAllocs()
				b.ResetTimer()
				var took int64
				fmt.Fprintln(orders, b.N)
				if _, err := fmt.Fscanln(reports, &took); err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(took), "p50-ns")
			})
		}
	}
}

// farClient names the environment variable that makes the test binary the far
// side of BenchmarkRoundTrip, and says where to connect.
const farClient = "LOOP_TEST_FAR_CLIENT"

func TestMain(m *testing.M) {
	where, ok := os.LookupEnv(farClient)
	if !ok {
		os.Exit(m.Run())
	}
	if err := beFarClient(where); err != nil {
		fmt.Fprintln(os.Stderr, "far client:", err)
		os.Exit(1)
	}
}

// beFarClient makes as many round trips as each line of its input says, and
// prints their median in nanoseconds.
func beFarClient(where string) error {
	network, address, _ := strings.Cut(where, " ")
	conn, err := net.Dial(network, address)
	if err != nil {
		return err
	}
	message, answer := make([]byte, 4096), make([]byte, 16)
	for {
		var n int
		if _, err := fmt.Scanln(&n); err != nil {
			return nil // the benchmark is over
		}
		took := make([]time.Duration, n)
		for i := range took {
			start := time.Now()
			if _, err := conn.Write(message); err != nil {
				return err
			}
			if _, err := io.ReadFull(conn, answer); err != nil {
				return err
			}
			took[i] = time.Since(start)
		}
		slices.Sort(took)
		fmt.Println(int64(took[n/2]))
	}
}

// BenchmarkStream keeps 64 messages in flight.
func BenchmarkStream(b *testing.B) {
	for _, k := range kinds {
		for _, i := range []int{0, 2, 6} {
			tr := transports[i]
			b.Run(fmt.Sprintf("%s/%s", k.name, tr.name), func(b *testing.B) {
				c := startPong(b, k.o, 4096, tr.pair, nil)
				b.ReportAllocs()
				b.SetBytes(4096)
				window := make(chan struct{}, 64)
				done := make(chan error, 1)
				total := b.N
				go func() {
					answers := make([]byte, 64*16)
					for have, freed := 0, 0; freed < total; {
						n, err := c.conn.Read(answers)
						if err != nil {
							done <- err
							return
						}
						for have += n; have >= 16; have -= 16 {
							<-window
							freed++
						}
					}
					done <- nil
				}()
				for range total {
					window <- struct{}{}
					if _, err := c.conn.Write(c.message); err != nil {
						b.Fatal(err)
					}
				}
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			})
		}
	}
}

// file is the least that a disk on a file can be, for BenchmarkFlush.
type file struct {
	null
	f *os.File
}

func (d file) WriteAt(p []byte, o int64) error { _, err := d.f.WriteAt(p, o); return err }
func (d file) Sync() error                     { return d.f.Sync() }

// BenchmarkFlush is a write and a flush, one at a time, with the flush on a
// worker or inline.
func BenchmarkFlush(b *testing.B) {
	for _, inline := range []bool{false, true} {
		b.Run(fmt.Sprintf("inline=%v", inline), func(b *testing.B) {
			f, err := os.CreateTemp(b.TempDir(), "disk")
			if err != nil {
				b.Fatal(err)
			}
			defer f.Close()
			l := start(b, Options{}, &idleCore{})
			back := make(chan struct{}, 1)
			write := &block.Task{Op: block.Write, Length: 4096, Data: make([]byte, 4096)}
			flush := &block.Task{Op: block.Flush}
			var d *Disks
			on(b, l, func() {
				d = NewDisks(l, file{f: f}, nil, DiskOptions{InlineSync: inline}, func(t *block.Task) {
					if t == write {
						d.Do(flush)
					} else {
						back <- struct{}{}
					}
				})
			})
			b.ReportAllocs()
			begin := func() { d.Do(write) }
			took := make([]time.Duration, 0, 1<<20)
			for b.Loop() {
				start := time.Now()
				l.Post(begin)
				<-back
				took = append(took, time.Since(start))
			}
			// A shared disk's rare pauses drown the mean.
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "p50-ns")
			on(b, l, func() { _ = d.Close() })
		})
	}
}
