// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
)

// WrongKey says that a connection failed because a key is not the pinned one:
// the other machine lives, and only its keys, or ours, are wrong.
type WrongKey struct {
	Name    string // whose key it should have been; the machine that refused ours
	File    string // the certificate that it was compared with
	Refused bool   // the other side refused our key, and not we its
}

// Error ends in a hint.
func (e *WrongKey) Error() string {
	const hint = "; hint: copy the tls directory made by one `twinbd init` to both nodes"
	if e.Refused {
		return fmt.Sprintf("%s refused the key of this machine: it is not the one in its copy of %s%s", e.Name, e.File, hint)
	}
	return fmt.Sprintf("%s presented a key that is not the one in %s%s", e.Name, e.File, hint)
}

// The alerts by which a server says that it does not want our certificate
// (RFC 8446, 6.2).
var refusals = []tls.AlertError{
	42,  // bad_certificate
	46,  // certificate_unknown
	48,  // unknown_ca
	49,  // access_denied
	116, // certificate_required
}

// Explain turns the error of a connection to name into a *WrongKey when it says
// that the other side refused our key, and returns any other as it is. In TLS
// 1.3 the client's handshake is over before the server has looked at its key, so
// the refusal comes as the error of the first Read: the connections that Connect
// returns explain themselves.
func (k *Keys) Explain(name string, err error) error {
	remote, ok := errors.AsType[*net.OpError](err)
	if k == nil || !ok || remote.Op != "remote error" || remote.Err == nil {
		return err
	}
	for _, alert := range refusals {
		// The type of alerts that came from the other side is not exported.
		if remote.Err.Error() == alert.Error() {
			return &WrongKey{Name: name, File: certificateFile(k.dir, k.self), Refused: true}
		}
	}
	return err
}
