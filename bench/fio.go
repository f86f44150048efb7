// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"time"
)

// coldBytes bounds what one run with cold intents writes to thin disks.
const coldBytes = 256 << 20

// fioArgs is the command line for one run. The seed is the same for all
// systems in a round, so that they see the same offsets.
func fioArgs(j job, w window, uri string, runtime time.Duration, seed int) []string {
	args := []string{
		"fio", "--thread", "--name=" + j.name, "--ioengine=nbd", "--uri=" + uri,
		"--bs=" + strconv.FormatInt(j.block, 10), "--iodepth=" + strconv.Itoa(j.depth),
		"--offset=" + strconv.FormatInt(w.offset, 10), "--size=" + strconv.FormatInt(w.length, 10),
		"--randseed=" + strconv.Itoa(seed),
		"--output-format=json", "--percentile_list=50:99:99.9",
	}
	if w.once {
		count := min(w.length/region, coldBytes/j.block)
		args = append(args,
			fmt.Sprintf("--rw=write:%d", region-j.block),
			fmt.Sprintf("--io_size=%d", count*j.block))
	} else {
		args = append(args, "--rw="+j.rw,
			fmt.Sprintf("--runtime=%dms", runtime.Milliseconds()), "--time_based")
	}
	if j.flush {
		// Not fdatasync: fio's nbd engine refuses that.
		args = append(args, "--fsync=1")
	}
	return args
}

// figures are what one run brought.
type figures struct {
	Requests int64   `json:"requests"` // reads or writes; flushes are not counted
	IOPS     float64 `json:"iops"`
	MBps     float64 `json:"mb_per_s"` // 10^6 bytes
	P50      float64 `json:"p50_us"`   // of the flush, in a job that flushes
	P99      float64 `json:"p99_us"`
	P999     float64 `json:"p999_us"`
	CPU      float64 `json:"cpu_us_per_request"` // of all server processes
}

// runFio runs one job and returns its figures, CPU aside.
func runFio(ctx context.Context, o *options, j job, w window, uri string, seed int) (figures, error) {
	args := pinned(o.cpu, fioArgs(j, w, uri, o.time, seed))
	// Far more than the run takes, so that a server that hangs ends the
	// benchmark with a message.
	ctx, cancel := context.WithTimeout(ctx, o.time+time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if ctx.Err() != nil {
		return figures{}, fmt.Errorf("wait for fio: %w", ctx.Err())
	}
	if err != nil {
		return figures{}, fmt.Errorf("run fio: %w: %s", err, lastLine(stderr.Bytes()))
	}
	return parseFio(j, out)
}

// fioOutput is the part of fio's JSON that is read.
type fioOutput struct {
	Jobs []struct {
		Error int         `json:"error"`
		Read  fioRequests `json:"read"`
		Write fioRequests `json:"write"`
		Sync  struct {
			Latency fioLatency `json:"lat_ns"`
		} `json:"sync"`
	} `json:"jobs"`
}

type fioRequests struct {
	Total     int64      `json:"total_ios"`
	IOPS      float64    `json:"iops"`
	Bandwidth float64    `json:"bw_bytes"`
	Latency   fioLatency `json:"clat_ns"`
}

type fioLatency struct {
	Count       int64              `json:"N"`
	Percentiles map[string]float64 `json:"percentile"`
}

var errNoRequests = errors.New("fio completed no request")

// parseFio reads fio's JSON, which a line of the engine's may precede.
func parseFio(j job, out []byte) (figures, error) {
	start := bytes.IndexByte(out, '{')
	if start < 0 {
		return figures{}, errors.New("read fio's output: no JSON in it")
	}
	var parsed fioOutput
	if err := json.Unmarshal(out[start:], &parsed); err != nil {
		return figures{}, fmt.Errorf("read fio's output: %w", err)
	}
	if len(parsed.Jobs) != 1 {
		return figures{}, fmt.Errorf("read fio's output: %d jobs instead of one", len(parsed.Jobs))
	}
	result := parsed.Jobs[0]
	if result.Error != 0 {
		return figures{}, fmt.Errorf("fio ended with error %d", result.Error)
	}
	requests := result.Write
	if j.reads() {
		requests = result.Read
	}
	latency := requests.Latency
	if j.flush {
		latency = result.Sync.Latency
		if latency.Count == 0 {
			return figures{}, errors.New("fio completed no flush")
		}
	}
	if requests.Total == 0 {
		return figures{}, errNoRequests
	}
	microseconds := func(percentile string) float64 { return latency.Percentiles[percentile] / 1e3 }
	return figures{
		Requests: requests.Total,
		IOPS:     requests.IOPS,
		MBps:     requests.Bandwidth / 1e6,
		P50:      microseconds("50.000000"),
		P99:      microseconds("99.000000"),
		P999:     microseconds("99.900000"),
	}, nil
}

func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	return string(b[bytes.LastIndexByte(b, '\n')+1:])
}
