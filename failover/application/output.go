// SPDX-License-Identifier: Apache-2.0

package application

import "sync"

// keep is how much of a command's output is kept, in bytes: its end.
const keep = 4 << 10

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte // the last keep bytes are what counts; at most twice as many are held
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	written := len(p)
	if written > keep {
		p = p[written-keep:]
	}
	if len(t.kept)+len(p) > 2*keep {
		n := copy(t.kept, t.kept[len(t.kept)-keep:])
		t.kept = t.kept[:n]
	}
	t.kept = append(t.kept, p...)
	return written, nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.kept[max(0, len(t.kept)-keep):])
}
