// SPDX-License-Identifier: Apache-2.0

package control

import "time"

// Split is a volume of which both nodes have writes that the other lacks, or
// whose two disks have no history in common.
type Split struct {
	Service string      `json:"service"`
	Volume  string      `json:"volume"`
	Sides   []SplitSide `json:"sides"` // both nodes, the one that was asked first
}

// Side returns the side of the node of that name, or nil.
func (s *Split) Side(node string) *SplitSide {
	for i := range s.Sides {
		if s.Sides[i].Node == node {
			return &s.Sides[i]
		}
	}
	return nil
}

// SplitSide is what one node has that the other lacks.
type SplitSide struct {
	Node       string    `json:"node"`
	Serves     bool      `json:"serves"`
	Split      bool      `json:"split"`               // it found a split when it last met the other
	Generation string    `json:"generation"`          // of its content, 32 hexadecimal digits
	Base       string    `json:"base"`                // the generation at which it parted
	Unrelated  bool      `json:"unrelated,omitempty"` // the disks have no history in common
	Whole      bool      `json:"whole,omitempty"`     // any block may differ: Blocks is all of them
	Blocks     int64     `json:"blocks"`              // written since, or maybe
	Bytes      int64     `json:"bytes"`               // the same in bytes
	Apart      time.Time `json:"apart,omitzero"`      // since when, if its process saw it
	LastWrite  time.Time `json:"lastWrite,omitzero"`  // by the time of the disk's file; of a block device nobody knows
	Forced     string    `json:"forced,omitempty"`    // who forced it to serve, and when
}

// Reason says in one line why nothing is copied.
func (s *Split) Reason() string {
	for _, side := range s.Sides {
		if side.Unrelated {
			return "the two disks have no history in common"
		}
	}
	return "both nodes have writes that the other lacks"
}
