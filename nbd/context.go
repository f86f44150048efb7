// SPDX-License-Identifier: Apache-2.0

package nbd

import (
	"encoding/binary"
	"strings"
)

// listContexts answers which status contexts an export has. A query is a whole
// name, or a namespace and a colon for all that is in it; no query asks for all.
func (h *handshake) listContexts(id uint32, data []byte) error {
	e, queries, err := h.contextQueries(data)
	if err != nil {
		return err
	}
	for _, c := range contexts {
		if e.Contexts&c.bit == 0 || len(queries) > 0 && !matches(queries, c.name, true) {
			continue
		}
		h.respond(id, repContext, make([]byte, 4), []byte(c.name))
	}
	h.respond(id, repAck)
	return nil
}

// setContexts chooses the contexts that BLOCK_STATUS will answer about. It
// replaces what was chosen before, even when it fails.
func (h *handshake) setContexts(id uint32, data []byte) error {
	h.contexts, h.contextsFor = 0, ""
	e, queries, err := h.contextQueries(data)
	if err != nil {
		return err
	}
	for _, c := range contexts {
		if e.Contexts&c.bit == 0 || !matches(queries, c.name, false) {
			continue
		}
		h.contexts |= c.bit
		h.respond(id, repContext, binary.BigEndian.AppendUint32(nil, c.id), []byte(c.name))
	}
	h.contextsFor = e.Name
	h.respond(id, repAck)
	return nil
}

// contextQueries reads the data that both options share. What is in an unknown
// namespace, or in none, matches nothing and is no error.
func (h *handshake) contextQueries(data []byte) (Export, []string, error) {
	if !h.structured {
		return Export{}, nil, &Refusal{ReplyInvalid, "structured replies come first"}
	}
	rest := cursor{data}
	name, ok := rest.name()
	if !ok {
		return Export{}, nil, errMalformed
	}
	count, ok := rest.uint32()
	if !ok || uint64(count) > uint64(len(rest.b)/4) {
		return Export{}, nil, errMalformed
	}
	queries := make([]string, count)
	for i := range queries {
		if queries[i], ok = rest.name(); !ok {
			return Export{}, nil, errMalformed
		}
	}
	if len(rest.b) > 0 {
		return Export{}, nil, errMalformed
	}
	e, err := h.lookup(name)
	return e, queries, err
}

// matches reports whether any query means the context.
func matches(queries []string, context string, wildcards bool) bool {
	namespace := context[:strings.IndexByte(context, ':')+1]
	for _, q := range queries {
		if q == context || wildcards && q == namespace {
			return true
		}
	}
	return false
}
