// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import "testing"

// On XFS, whose journal is replayed by the mount itself, and not by a check before it.
func TestMariaDB(t *testing.T) {
	database{
		script:  "maria",
		options: options{size: 320 << 20, pace: `{ heartbeat = "500ms", timeout = "8s" }`, fs: "xfs", modules: []string{"xfs"}},
		fill:    "cp -a /srv/maria /data/maria",
		client: []string{
			"mariadb", "--no-defaults", "--protocol=tcp", "--host=" + virtual, "--user=client", "--connect-timeout=4",
			"--database=rows", "--skip-ssl", "--batch", "--skip-column-names", "--execute",
		},
		sound: "mariadb-check --no-defaults --socket=/tmp/maria.sock --user=client --all-databases --extended --silent",
	}.show(t)
}
