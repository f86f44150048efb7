// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"fmt"

	"github.com/twinbd/twinbd/internal/block"
)

// Exports is what the handshake asks about what there is to serve. Calls may
// overlap.
type Exports interface {
	// Lookup finds an export by name; "" is the default one. A *Refusal says
	// how to answer; any other error is sent as ReplyUnknown with its text.
	Lookup(name string) (Export, error)

	// List returns the names of the exports in the order to show them.
	List() []string
}

// Refusal is the answer to a client that asked for an export that it cannot
// have here and now.
type Refusal struct {
	Reply   Reply  // ReplyUnknown, ReplyPolicy, ReplyShutdown, …
	Message string // one line for the user, e.g. "this node is secondary; alpha serves this volume"
}

func (r *Refusal) Error() string {
	if r.Message != "" {
		return r.Message
	}
	switch r.Reply {
	case ReplyUnsupported:
		return "option not supported"
	case ReplyPolicy:
		return "refused by policy"
	case ReplyInvalid:
		return "option not valid"
	case ReplyTLSRequired:
		return "TLS required"
	case ReplyUnknown:
		return "no such export"
	case ReplyShutdown:
		return "server is shutting down"
	case ReplyTooBig:
		return "option too large"
	}
	return fmt.Sprintf("refused with reply %#x", uint32(r.Reply))
}

// Export describes one export to clients.
type Export struct {
	Name        string // canonical, at most 4096 bytes of UTF-8
	Description string // for people; may be empty
	Size        int64  // bytes

	// Block sizes in bytes. Zero means the default: 1, 4096, block.MaxLength.
	Minimum   uint32 // power of two, at most 64 KiB; offsets and lengths are multiples
	Preferred uint32 // power of two, at least 512 and Minimum
	Maximum   uint32 // longest READ and WRITE, at least Preferred, at most block.MaxLength

	ReadOnly   bool
	Rotational bool
	Contexts   uint8 // block.Context… bits that BlockStatus can be asked for
}

// check returns the export with its defaults filled in, or what is wrong.
func (e Export) check() (Export, error) {
	if e.Minimum == 0 {
		e.Minimum = 1
	}
	if e.Preferred == 0 {
		e.Preferred = max(defaultPreferred, e.Minimum)
	}
	if e.Maximum == 0 {
		e.Maximum = block.MaxLength
	}
	switch {
	case len(e.Name) > maxString || len(e.Description) > maxString:
		return e, fmt.Errorf("export %.64q: name or description is longer than %d bytes", e.Name, maxString)
	case e.Size < 0:
		return e, fmt.Errorf("export %q: size %d is negative", e.Name, e.Size)
	case e.Minimum&(e.Minimum-1) != 0 || e.Minimum > largestMinimumSize:
		return e, fmt.Errorf("export %q: minimum block size %d is not a power of two up to %d", e.Name, e.Minimum, largestMinimumSize)
	case e.Preferred&(e.Preferred-1) != 0 || e.Preferred < max(512, e.Minimum):
		return e, fmt.Errorf("export %q: preferred block size %d is not a power of two of at least %d", e.Name, e.Preferred, max(512, e.Minimum))
	case e.Maximum < e.Preferred || e.Maximum > block.MaxLength:
		return e, fmt.Errorf("export %q: maximum length %d is not between %d and %d", e.Name, e.Maximum, e.Preferred, block.MaxLength)
	}
	return e, nil
}

// flags are the transmission flags of the export. What a read-only export
// would refuse anyway is not offered; FUA is, since clients set it on anything.
func (e Export) flags(structured bool) uint16 {
	f := FlagHasFlags | FlagSendFlush | FlagSendFUA | FlagCanMultiConn | FlagSendCache
	if e.ReadOnly {
		f |= FlagReadOnly
	} else {
		f |= FlagSendTrim | FlagSendZeroes | FlagSendFastZeroes
	}
	if e.Rotational {
		f |= FlagRotational
	}
	if structured {
		f |= FlagSendDF
	}
	return f
}
