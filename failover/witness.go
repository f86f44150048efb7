// SPDX-License-Identifier: Apache-2.0

package failover

import "context"

// Witness is what a node sees of the witness. Calls may overlap. The node fills
// in neither Cluster nor From: the Witness speaks in its name.
//
// An error says nothing about the record, nor whether a change happened: the
// node repeats the same request, token included, until it is answered.
type Witness interface {
	Read(ctx context.Context, q Query) (Answer, error)
	Change(ctx context.Context, q Request) (Answer, error)
}

var (
	_ Witness = (*Client)(nil)
	_ Witness = (*Local)(nil)
)

// Local is a Witness in the same process, for tests and simulations.
type Local struct {
	register      *Register
	cluster, from string
}

// NewLocal returns the witness as the node called from sees it.
func NewLocal(r *Register, cluster, from string) *Local { return &Local{r, cluster, from} }

// Read is Register.Read.
func (l *Local) Read(ctx context.Context, q Query) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	q.Cluster, q.From = l.cluster, l.from
	return l.register.Read(q)
}

// Change is Register.Change.
func (l *Local) Change(ctx context.Context, q Request) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, err
	}
	q.Cluster, q.From = l.cluster, l.from
	return l.register.Change(q)
}
