// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"github.com/pojntfx/go-nbd/pkg/protocol"

	"github.com/twinbd/twinbd/internal/block"
)

// The numbers of the specification. Those that go-nbd knows are taken from
// there; all fields on the wire are big endian.

const (
	magicGreeting   = protocol.NEGOTIATION_MAGIC_OLDSTYLE // 8 bytes, opens the server's greeting
	magicOption     = protocol.NEGOTIATION_MAGIC_OPTION   // 8 bytes, ends it, and opens every option
	magicReply      = protocol.NEGOTIATION_MAGIC_REPLY    // 8 bytes, opens every reply to an option
	magicSimple     = protocol.TRANSMISSION_MAGIC_REPLY   // 4 bytes, opens a simple reply
	magicStructured = uint32(0x668e33ef)                  // 4 bytes, opens a chunk of a structured reply
)

// Handshake flags, of the server and, as the same bits, of the client.
const (
	flagFixedNewstyle = protocol.NEGOTIATION_HANDSHAKE_FLAG_FIXED_NEWSTYLE
	flagNoZeroes      = uint16(1 << 1)
)

// Transmission flags: what an export can do.
const (
	FlagHasFlags       = protocol.NEGOTIATION_REPLY_FLAGS_HAS_FLAGS
	FlagReadOnly       = uint16(1 << 1)
	FlagSendFlush      = uint16(1 << 2)
	FlagSendFUA        = uint16(1 << 3)
	FlagRotational     = uint16(1 << 4)
	FlagSendTrim       = uint16(1 << 5)
	FlagSendZeroes     = uint16(1 << 6)
	FlagSendDF         = uint16(1 << 7)
	FlagCanMultiConn   = protocol.NEGOTIATION_REPLY_FLAGS_CAN_MULTI_CONN
	FlagSendCache      = uint16(1 << 10)
	FlagSendFastZeroes = uint16(1 << 11)
)

// Options of the handshake.
const (
	optExportName  = uint32(1)
	optAbort       = protocol.NEGOTIATION_ID_OPTION_ABORT
	optList        = protocol.NEGOTIATION_ID_OPTION_LIST
	optStartTLS    = uint32(5)
	optInfo        = protocol.NEGOTIATION_ID_OPTION_INFO
	optGo          = protocol.NEGOTIATION_ID_OPTION_GO
	optStructured  = uint32(8)
	optListContext = uint32(9)
	optSetContext  = uint32(10)
)

// Reply is the type of a server's reply to an option.
type Reply uint32

// The replies to options. Those with the highest bit are refusals.
const (
	repAck     = Reply(protocol.NEGOTIATION_TYPE_REPLY_ACK)
	repServer  = Reply(protocol.NEGOTIATION_TYPE_REPLY_SERVER)
	repInfo    = Reply(protocol.NEGOTIATION_TYPE_REPLY_INFO)
	repContext = Reply(4)
	repError   = Reply(1 << 31)

	ReplyUnsupported = Reply(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNSUPPORTED)
	ReplyPolicy      = repError + 2 // this server does not want to
	ReplyInvalid     = repError + 3
	ReplyTLSRequired = repError + 5
	ReplyUnknown     = Reply(protocol.NEGOTIATION_TYPE_REPLY_ERR_UNKNOWN) // no such export
	ReplyShutdown    = repError + 7                                       // this server is about to stop
	ReplyTooBig      = repError + 9
)

// Information about an export, in repInfo.
const (
	infoExport      = protocol.NEGOTIATION_TYPE_INFO_EXPORT
	infoName        = protocol.NEGOTIATION_TYPE_INFO_NAME
	infoDescription = protocol.NEGOTIATION_TYPE_INFO_DESCRIPTION
	infoBlockSize   = protocol.NEGOTIATION_TYPE_INFO_BLOCKSIZE
)

// Chunks of a structured reply. Those with the highest bit are errors.
const (
	chunkNone        = uint16(0)
	chunkData        = uint16(1) // offset 8, data
	chunkHole        = uint16(2) // offset 8, length 4
	chunkStatus      = uint16(5) // context id 4, (length 4, flags 4)…
	chunkErrorBit    = uint16(1 << 15)
	chunkError       = chunkErrorBit + 1 // error 4, message length 2, message
	chunkErrorOffset = chunkErrorBit + 2 // the same, offset 8

	chunkDone = uint16(1 << 0) // the flag of a reply's last chunk
)

// commandDisconnect is the one command that is no request to an engine.
const commandDisconnect = block.Op(protocol.TRANSMISSION_TYPE_REQUEST_DISC)

// Lengths in bytes.
const (
	greetingLength     = 18 // magic 8, magic 8, flags 2
	optionHeader       = 16 // magic 8, option 4, length 4
	optionReplyHeader  = 20 // magic 8, option 4, type 4, length 4
	legacyZeroes       = 124
	simpleHeader       = 16 // magic 4, error 4, cookie 8
	chunkHeader        = 20 // magic 4, flags 2, type 2, cookie 8, length 4
	dataHeader         = chunkHeader + 8
	holeLength         = chunkHeader + 12
	errorHeader        = chunkHeader + 6
	statusHeader       = chunkHeader + 4
	extentLength       = 8
	maxString          = 4096 // of any name or message
	defaultPreferred   = 4096
	largestMinimumSize = 1 << 16
)

// The status contexts, and the ids under which their answers travel.
const (
	ContextAllocationName = "base:allocation"
	ContextDirtyName      = "twinbd:dirty"
)

var contexts = [...]struct {
	name string
	bit  uint8
	id   uint32
}{
	{ContextAllocationName, block.ContextAllocation, 1},
	{ContextDirtyName, block.ContextDirty, 2},
}
