// SPDX-License-Identifier: Apache-2.0

package application

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCommandErrors(t *testing.T) {
	left := undeadError{{Pid: 12, Name: "dd", State: "D"}}
	for _, test := range []struct {
		err  CommandError
		want string
	}{
		{CommandError{Outcome: Exited, Status: 1, Output: "a\nno such database\n\n"}, "exited with status 1: no such database"},
		{CommandError{Outcome: Exited, Status: 3}, "exited with status 3"},
		{CommandError{Outcome: Exited, Status: 126}, "exited with status 126, not executable; hint: chmod +x, or name its interpreter"},
		{CommandError{Outcome: Exited, Status: 127, Output: "sh: 1: pgctl: not found"}, "exited with status 127, command not found: sh: 1: pgctl: not found; hint: give the full path"},
		{CommandError{Outcome: Exited, Status: 137}, "exited with status 137, of a command killed by a signal (killed)"},
		{CommandError{Outcome: Exited, Status: 255}, "exited with status 255"},
		{CommandError{Outcome: Signalled, Signal: syscall.SIGSEGV}, "was killed by a signal from elsewhere (segmentation fault)"},
		{CommandError{Outcome: TimedOut, Cause: limitError{3 * time.Second}, Output: "waiting"}, "did not end within 3s and was killed: waiting"},
		{CommandError{Outcome: TimedOut, Cause: failures{limitError{time.Second}, left}}, "did not end within 1s and was killed; killed, but still there: dd (12); they hang in the kernel (state D): reboot this node"},
		{CommandError{Outcome: Stopped, Cause: ErrForced}, "was ended: this node has lost the right to serve"},
		{CommandError{Outcome: NotStarted, Cause: ErrEnded}, "was not started: the term has ended"},
		{CommandError{Outcome: Exited, Status: 1, Output: "\x1b[31mred\x07\r"}, "exited with status 1: [31mred"},
		{CommandError{Outcome: Exited, Status: 1, Output: strings.Repeat("x", 300)}, "exited with status 1: " + strings.Repeat("x", 200) + "…"},
	} {
		test.err.Name, test.err.Line = "start command 1", "systemctl start x"
		if got, want := test.err.Error(), `start command 1 ("systemctl start x") `+test.want; got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
		if test.err.Outcome == TimedOut && !errors.Is(&test.err, os.ErrDeadlineExceeded) {
			t.Errorf("%v hides its cause", &test.err)
		}
	}
}

// The tail is the end of all that was written, however it was cut.
func TestTail(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var kept tail
		var all []byte
		for _, size := range rapid.SliceOf(rapid.IntRange(0, 3*keep)).Draw(t, "sizes") {
			piece := make([]byte, size)
			for i := range piece {
				piece[i] = byte(len(all) + i*7)
			}
			all = append(all, piece...)
			if n, err := kept.Write(piece); n != size || err != nil {
				t.Fatalf("wrote %d of %d: %v", n, size, err)
			}
			if cap(kept.kept) > 4*keep {
				t.Fatalf("holds %d bytes", cap(kept.kept))
			}
		}
		if got, want := kept.String(), string(all[max(0, len(all)-keep):]); got != want {
			t.Fatalf("kept %d bytes, want the last %d", len(got), len(want))
		}
	})
}
