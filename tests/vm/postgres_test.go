// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vm

import "testing"

// asPostgres runs what follows as the user of PostgreSQL, on the machine that serves.
const asPostgres = "cd /; export PGHOST=/tmp; setpriv --reuid=postgres --regid=postgres --clear-groups "

// postgresSettings are for a machine that is emulated, and small.
const postgresSettings = `
unix_socket_directories = '/tmp'
shared_buffers = 8MB
max_wal_size = 16MB
min_wal_size = 4MB
max_connections = 10
autovacuum = off
`

func TestPostgres(t *testing.T) {
	database{
		script:  "pg",
		options: options{size: 160 << 20, pace: `{ heartbeat = "500ms", timeout = "8s" }`},
		fill: `cp -a /srv/pg /data/pg
echo "listen_addresses = '*'` + postgresSettings + `" >>/data/pg/postgresql.conf
echo 'host all all 10.66.0.0/24 trust' >>/data/pg/pg_hba.conf`,
		client:    []string{"psql", "--no-psqlrc", "-qAt", "-h", virtual, "-U", "postgres", "-c"},
		clientEnv: []string{"PGCONNECT_TIMEOUT=4", "PGOPTIONS=-c statement_timeout=12s"},

		prepare: asPostgres + "/srv/bin/pgbench --initialize --quiet 2>/dev/null",
		load: "said=$(" + asPostgres + `/srv/bin/pgbench --no-vacuum --client=3 --time=45 2>&1)
echo "$said" | grep -e transactions -e tps
echo "$said" | grep -q 'failed transactions: 0 '`,

		// What pgbench has moved is the same in the four tables that it moves it in.
		sound: asPostgres + `/srv/bin/pg_amcheck --all --install-missing --heapallindexed
` + asPostgres + `psql -qAt -c 'select sum(abalance) from pgbench_accounts union select sum(tbalance) from pgbench_tellers
union select sum(bbalance) from pgbench_branches union select sum(delta) from pgbench_history' | wc -l | grep -x 1`,
	}.show(t)
}
