// SPDX-License-Identifier: Apache-2.0

package failover

import "fmt"

// Apply decides on a request. It is pure: it returns the record that is to be
// kept, which is the old one unless the request is granted anew, and the answer
// without its Serial. The caller makes the record durable before it answers.
//
// The order of the questions is the safety argument. First the repeat, known by
// the digest of the whole request and nothing less: a holder and an epoch that
// match may be somebody else's doing (a handover makes the very record that a
// takeover asks for). Then the epoch: it is compared and raised by every change,
// so a late or doubled request can only miss. Only then who asks for what.
func Apply(r Record, q Request) (Record, Answer) {
	digest := q.digest()
	if !r.Empty() && digest == r.Digest {
		return r, Answer{Granted: true, Record: r}
	}
	if reason := refusal(r, &q); reason != "" {
		return r, Answer{Record: r, Reason: reason}
	}
	next := Record{
		Epoch:  max(q.Replaces+1, q.RaiseTo),
		Holder: q.Holder,
		Mode:   q.Mode,
		Token:  q.Token,
		Digest: digest,
	}
	return next, Answer{Granted: true, Record: next}
}

// refusal says in one sentence why q is refused, or nothing.
func refusal(r Record, q *Request) string {
	if err := q.check(); err != nil {
		return fmt.Sprintf("%v (the witness has %v)", err, r)
	}
	if reason := wrongEpoch(r, q); reason != "" {
		return reason
	}
	switch {
	case q.Operator:
		return wrongForOperator(r, q)
	case r.Empty():
		return fmt.Sprintf("the witness has no record of service %s (epoch 0, no holder): "+
			"run `twinbd prim %s` on the node whose data is to be used", q.Service, q.Service)
	case q.From == r.Holder:
		return "" // it may go alone, return to pair, or hand over to its peer
	default:
		return wrongForOther(r, q)
	}
}

// wrongEpoch compares: whoever asks knows the record as it is, and leaves it
// higher.
func wrongEpoch(r Record, q *Request) string {
	switch {
	case q.Replaces > r.Epoch:
		return fmt.Sprintf("%s names epoch %d, but the witness has only %v: it has lost newer records; "+
			"`twinbd primforce %s` on the node with the newest data raises it", q.From, q.Replaces, r, q.Service)
	case q.Replaces < r.Epoch:
		return fmt.Sprintf("%s names epoch %d, but the service is at %v", q.From, q.Replaces, r)
	case q.RaiseTo != 0 && !q.Operator:
		return fmt.Sprintf("only an operator raises past the next epoch, and the service is at %v", r)
	case q.RaiseTo != 0 && q.RaiseTo <= r.Epoch:
		return fmt.Sprintf("nobody lowers an epoch: %s would set %d, and the service is at %v", q.From, q.RaiseTo, r)
	case max(r.Epoch+1, q.RaiseTo) > MaxEpoch:
		return fmt.Sprintf("there is no epoch above %d, and the service is at %v", uint64(MaxEpoch), r)
	case q.Token == r.Token:
		return fmt.Sprintf("the token of the last change is used for another request, and the service is at %v", r)
	}
	return ""
}

// wrongForOperator holds the operator's word to what it means: "this node's
// data, whatever the other has".
func wrongForOperator(r Record, q *Request) string {
	switch {
	case q.Holder != q.From:
		return fmt.Sprintf("an operator chooses the node that asks, which is %s and not %s; the witness has %v",
			q.From, q.Holder, r)
	case q.Mode != Alone:
		return fmt.Sprintf("an operator's choice is alone until the peer is in step; the witness has %v", r)
	}
	return ""
}

// wrongForOther holds who is not the holder to the one thing that it may do:
// take over from a pair. It becomes alone in the same step, for the former
// holder may show what was never acknowledged.
func wrongForOther(r Record, q *Request) string {
	switch {
	case q.Holder != q.From:
		return fmt.Sprintf("only the holder hands over, and the service is at %v", r)
	case r.Mode == Alone:
		return fmt.Sprintf("%s may lack writes: the service is at %v", q.From, r)
	case q.Mode != Alone:
		return fmt.Sprintf("who takes over is alone first, and the service is at %v", r)
	}
	return ""
}
