// SPDX-License-Identifier: Apache-2.0

package loop

import (
	"errors"
	"slices"

	"github.com/twinbd/twinbd/internal/block"
)

// A disk may never answer, and a client is not to wait for it then: its request
// goes on without the disk, and its memory is used for others. So a worker has
// memory of its own. Bytes pass between that and a task's memory in pieces,
// under the job's lock, and only while nobody has recalled the task: what a hung
// disk does when it comes back to life reaches no memory but the worker's, and
// brings no bytes to the disk but those of the task. Bulk tasks (Drop) do
// without: their memory is the engine's until they come back.

// workspace is what one worker has for itself. It is made when it is needed first.
type workspace struct {
	bytes   []byte
	extents []block.Extent
}

// pieceSize is the length in bytes of the pieces in which a worker moves data.
const pieceSize = 1 << 20

var errRecalled = errors.New("task was recalled")

// perform is the part of a job that may wait.
func (j *job) perform(own *workspace) {
	advisor, advises := j.disk.(block.Advisor)
	t := j.task
	switch {
	case t == nil:
		for _, x := range j.ranges {
			advisor.StartWriteback(x.start, x.length())
		}
		return
	case j.copy(nil, nil) != nil: // while it waited for a worker
		t.Err = errRecalled
		return
	case !t.Drop && (t.Op == block.Read || t.Op == block.Write):
		t.Err = j.move(own)
	case t.Op == block.BlockStatus:
		t.Err = j.explore(own)
	default:
		perform(j.disk, t)
	}
	if !advises || t.Err != nil {
		return
	}
	if t.Op == block.Flush {
		for _, x := range j.ranges {
			advisor.Drop(x.start, x.length())
		}
	}
	if t.Drop {
		j.forget(advisor)
	}
}

// move reads or writes piece by piece, by way of the worker's own memory.
func (j *job) move(own *workspace) error {
	if own.bytes == nil {
		own.bytes = make([]byte, pieceSize)
	}
	t := j.task
	for at := 0; at < len(t.Data); at += pieceSize {
		piece := own.bytes[:min(pieceSize, len(t.Data)-at)]
		offset := t.Offset + int64(at)
		var err error
		if t.Op == block.Write {
			if err = j.copy(piece, t.Data[at:]); err == nil {
				err = j.disk.WriteAt(piece, offset)
			}
		} else if err = j.disk.ReadAt(piece, offset); err == nil {
			err = j.copy(t.Data[at:], piece)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// copy copies from or to the task's memory, unless it was recalled.
func (j *job) copy(to, from []byte) error {
	j.memory.Lock()
	defer j.memory.Unlock()
	if j.recalled {
		return errRecalled
	}
	copy(to, from)
	return nil
}

// explore answers BlockStatus.
func (j *job) explore(own *workspace) error {
	t := j.task
	room := cap(t.Extents) - len(t.Extents)
	own.extents = slices.Grow(own.extents[:0], room)
	found, err := block.Allocation(own.extents[:0:room], j.disk, t.Offset, t.Length)
	if err != nil {
		return err
	}
	j.memory.Lock()
	defer j.memory.Unlock()
	if j.recalled {
		return errRecalled
	}
	t.Extents = append(t.Extents, found...)
	return nil
}

// recall takes the task's memory back. It waits for a piece that is just being
// copied, never for the disk.
func (j *job) recall() {
	j.memory.Lock()
	j.recalled = true
	j.memory.Unlock()
}

// forget keeps bulk data from crowding the page cache. What was read goes at
// once; what was written can go only when it is clean, after the next flush.
func (j *job) forget(advisor block.Advisor) {
	switch j.task.Op {
	case block.Read:
		advisor.Drop(j.task.Offset, j.task.Length)
	case block.Write:
		advisor.StartWriteback(j.task.Offset, j.task.Length)
	}
}

// perform does a task in its blocking form and sets Err.
func perform(disk block.Disk, t *block.Task) {
	switch t.Op {
	case block.Read:
		// Bulk readers know what to do with a hole; it is not read.
		if t.Zeroes = t.Drop && block.IsHole(disk, t.Offset, t.Length); !t.Zeroes {
			t.Err = disk.ReadAt(t.Data, t.Offset)
		}
	case block.Write:
		t.Err = disk.WriteAt(t.Data, t.Offset)
	case block.WriteZeroes, block.Trim:
		t.Err = disk.Zero(t.Offset, t.Length, t.Punch)
	case block.Flush:
		t.Err = disk.Sync()
	case block.Cache:
		t.Err = nil
		if a, ok := disk.(block.Advisor); ok {
			a.WillNeed(t.Offset, t.Length)
		}
	default:
		t.Err = block.Invalid
	}
}
