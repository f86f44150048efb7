// SPDX-License-Identifier: Apache-2.0

// Package crowd is what every listener needs against those who connect and mean
// no good, or are merely broken: a List of who is there, which is bounded and
// makes room by sending the least deserving away, and a logger that says the
// same thing only so often.
//
// The one invariant: a List is never longer than its limit, and a newcomer gets in
// unless all who are there have earned their places. So nobody keeps others out by
// just being there.
package crowd
