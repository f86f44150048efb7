// SPDX-License-Identifier: Apache-2.0

//go:build linux

package hostile

import (
	"crypto/tls"
	"path/filepath"
	"testing"

	"github.com/twinbd/twinbd/internal/trust"
)

// foreignKeys are those of another cluster, which takes everybody for whom he says
// that he is.
func foreignKeys(t *testing.T) (*tls.Config, error) {
	dir := filepath.Join(t.TempDir(), "tls")
	if err := trust.Init(dir, []string{"alpha", "beta", "witness", "admin"}); err != nil {
		return nil, err
	}
	k, err := trust.Load(dir, "beta")
	if err != nil {
		return nil, err
	}
	config := k.Client("alpha")
	config.VerifyConnection = nil
	return config, nil
}
