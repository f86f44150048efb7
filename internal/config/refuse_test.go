// SPDX-License-Identifier: Apache-2.0

package config

import (
	"strings"
	"testing"
)

// refusals are edits of base and the problems that they make, all of them.
var refusals = []struct {
	name     string
	old, new string // old empty: new is put at the end
	want     string
}{
	{"no TOML", `cluster = "c"`, `cluster = `,
		`f.toml:1: unexpected character U+000A at start of value`},
	{"key twice", `cluster = "c"`, "cluster = \"c\"\ncluster = \"d\"",
		`f.toml:2: key cluster is already defined`},
	{"unknown key, near", `size =`, `sice =`,
		`f.toml:7: service.s.volume.v.size: is missing; expected e.g. 10GiB
f.toml:8: service.s.volume.v.sice: unknown key; hint: did you mean size?`},
	{"unknown key, far", `cluster = "c"`, "cluster = \"c\"\nquorum = 3",
		`f.toml:2: quorum: unknown key; hint: known here: cluster, console, node, service, tls, witness`},
	{"unknown table", "", "[service.s.volumes.w]\nsize = \"1GiB\"",
		`f.toml:10: service.s.volumes: unknown key; hint: did you mean volume?`},
	{"wrong kinds", `size = "1GiB"`, "size = 1073741824\nthin = \"yes\"\nintents = 1.5\nexport = [1]\nmount = true",
		`f.toml:8: service.s.volume.v.size: is a number; expected text with a unit, e.g. "10GiB"
f.toml:9: service.s.volume.v.thin: is text; expected true or false
f.toml:10: service.s.volume.v.intents: is a number; expected a whole number, 16 to 65535
f.toml:11: service.s.volume.v.export: is a list; expected unix:PATH or tcp:HOST:PORT, or a table with one for each node
f.toml:12: service.s.volume.v.mount: is true or false; expected a table`},
	{"size without unit", `"1GiB"`, `"1000"`,
		`f.toml:8: service.s.volume.v.size: "1000" has no unit; expected KiB, MiB, GiB or TiB, e.g. 10GiB`},
	{"size in GB", `"1GiB"`, `"1GB"`,
		`f.toml:8: service.s.volume.v.size: unknown unit "GB" in "1GB"; expected KiB, MiB, GiB or TiB, e.g. 10GiB`},
	{"size too large", `"1GiB"`, `"8388608TiB"`,
		`f.toml:8: service.s.volume.v.size: "8388608TiB" is too large`},
	{"size no multiple", `"1GiB"`, `"5KiB"`,
		`f.toml:8: service.s.volume.v.size: 5KiB is no multiple of 4KiB; expected e.g. 8KiB`},
	{"size zero", `"1GiB"`, `"0GiB"`,
		`f.toml:8: service.s.volume.v.size: is zero; expected e.g. 10GiB`},
	{"region", `size = "1GiB"`, "size = \"1GiB\"\nregion = \"3MiB\"\nintents = 8",
		`f.toml:9: service.s.volume.v.region: 3MiB is out of range; expected a power of two, 64KiB to 64MiB
f.toml:10: service.s.volume.v.intents: 8 is out of range; expected 16 to 65535`},
	{"names", `cluster = "c"`, "cluster = \"My Cluster\"\nnode.witness.address = [\"10.0.0.3:7800\"]",
		`f.toml:1: cluster: "My Cluster" is no name; expected 1 to 63 of a-z, 0-9 and -, with no - at either end
f.toml:2: node: there must be exactly two [node.NAME] tables; found a, b, witness
f.toml:2: node.witness: "witness" is what the keys of the witness are filed under; hint: choose another name`},
	{"addresses", `["10.0.0.1:7800"]`, `["alpha:7800", "10.0.0.1", "0.0.0.0:1", 5]`,
		`f.toml:4: node.a.address[0]: "alpha:7800" is no address; expected IP:PORT, e.g. 10.0.0.1:7800 or [fd00::1]:7800
f.toml:4: node.a.address[1]: "10.0.0.1" is no address; expected IP:PORT, e.g. 10.0.0.1:7800 or [fd00::1]:7800
f.toml:4: node.a.address[2]: 0.0.0.0:1 is no address of one node; expected IP:PORT, e.g. 10.0.0.1:7800
f.toml:4: node.a.address[3]: is a number; expected IP:PORT, e.g. 10.0.0.1:7800`},
	{"lines of list elements", `["10.0.0.1:7800"]`, "[ # first\n\"10.0.0.1:7800\",\n # second\n\"x\"]",
		`f.toml:7: node.a.address[1]: "x" is no address; expected IP:PORT, e.g. 10.0.0.1:7800 or [fd00::1]:7800`},
	{"no addresses", `address = ["10.0.0.1:7800"]`, `address = []`,
		`f.toml:4: node.a.address: is missing; expected a list of IP:PORT, e.g. 10.0.0.1:7800`},
	{"both nodes at one address", `10.0.0.2:7800`, `10.0.0.1:7800`,
		`f.toml:6: node.b.address: 10.0.0.1:7800 is already in node.a.address`},
	{"one machine, shared directories", `10.0.0.2:7800`, `10.0.0.1:7801`,
		`f.toml:5: node.b.state: /var/lib/twinbd is already used by node.a.state; hint: ` + oneMachineHint + `
f.toml:5: node.b.run: /run/twinbd/twinbd.sock is already used by node.a.run; hint: ` + oneMachineHint + `
f.toml:7: service.s.volume.v.export: /run/twinbd/v.sock is used by a and by b; hint: ` + oneMachineHint + `
f.toml:9: service.s.volume.v.disk: /data/v.img is used by a and by b; hint: ` + oneMachineHint},
	{"relative paths", `"/data/v.img"`, `{ a = "v.img", b = "/{name}/v.img" }`,
		`f.toml:9: service.s.volume.v.disk.a: "v.img" is relative; expected an absolute path
f.toml:9: service.s.volume.v.disk.b: "/{name}/v.img" has braces; {node} is the only thing that expands`},
	{"disk of one node", `"/data/v.img"`, `{ a = "/data/v.img", bb = "/x" }`,
		`f.toml:9: service.s.volume.v.disk.bb: there is no node bb; hint: did you mean b?
f.toml:9: service.s.volume.v.disk: has nothing for node b; expected an absolute path for each node`},
	{"metadata of a shaky name", `"/data/v.img"`, "{ a = \"/dev/sdb\", b = \"/dev/disk/by-id/x\" }\nmetadata = \"/data/v.meta\"",
		`f.toml:9: service.s.volume.v.disk.a: /dev/sdb may be another disk after a reboot; with metadata, expected a /dev/disk/by-… name; hint: use its name below /dev/disk/by-id`},
	{"metadata on the disk", `"/data/v.img"`, "\"/data/v.img\"\nmetadata = \"/data/./v.img\"",
		`f.toml:10: service.s.volume.v.metadata: /data/v.img is already used by service.s.volume.v.disk`},
	{"second volume alike", "", "[service.t.volume.v]\nsize = \"1GiB\"\ndisk = \"/data/v.img\"\n",
		`f.toml:10: service.t.volume.v: the name is already that of service.s.volume.v; volume names are unique in a cluster
f.toml:10: service.t.volume.v.export: /run/twinbd/v.sock is already used by service.s.volume.v.export
f.toml:12: service.t.volume.v.disk: /data/v.img is already used by service.s.volume.v.disk`},
	{"second device alike", "", "device = \"/dev/nbd0\"\n[service.s.volume.w]\nsize = \"1GiB\"\ndisk = \"/data/w.img\"\ndevice = \"/dev/nbd0\"",
		`f.toml:14: service.s.volume.w.device: /dev/nbd0 is already used by service.s.volume.v.device`},
	{"device, mount", "", "device = \"/dev/sda\"\nmount = { at = \"var\", type = \"\" }",
		`f.toml:10: service.s.volume.v.device: "/dev/sda" is no NBD device; expected /dev/nbd0, /dev/nbd1, …
f.toml:11: service.s.volume.v.mount.at: "var" is relative; expected an absolute path
f.toml:11: service.s.volume.v.mount.type: is empty; expected a file system, e.g. "ext4"`},
	{"export form", "", `export = "tcp:10809"`,
		`f.toml:10: service.s.volume.v.export: "10809" is no address; expected HOST:PORT, e.g. 10.0.0.3:7801`},
	{"export kind", "", `export = "nbd://x"`,
		`f.toml:10: service.s.volume.v.export: "nbd://x" is no export; expected unix:PATH or tcp:HOST:PORT, e.g. tcp:127.0.0.1:10809`},
	{"export beyond loopback", "", `export = "tcp:0.0.0.0:10809"`,
		`f.toml:10: service.s.volume.v.export: tcp:0.0.0.0:10809 can be reached from other machines, which needs [tls]; hint: make keys with ` + "`twinbd init`" + `, or export on 127.0.0.1`},
	{"export on the node's port", "", `export = { a = "tcp:127.0.0.1:7800", b = "tcp:[::]:7800" }`,
		`f.toml:10: service.s.volume.v.export.b: tcp:[::]:7800 can be reached from other machines, which needs [tls]; hint: make keys with ` + "`twinbd init`" + `, or export on 127.0.0.1
f.toml:10: service.s.volume.v.export: [::]:7800 is already used by node.b.address`},
	{"mount without device", "", `mount = { at = "/m", type = "ext4" }`,
		`f.toml:10: service.s.volume.v.mount: needs a device to mount; hint: add device = "/dev/nbd0"`},
	{"socket too long", "", `export = "unix:/` + strings.Repeat("x", 107) + `"`,
		`f.toml:10: service.s.volume.v.export: /` + strings.Repeat("x", 107) + ` is 108 bytes long; a socket's path may have 107`},
	{"run too long", `[node.a]`, "[node.a]\nrun = \"/" + strings.Repeat("x", 96) + "\"",
		`f.toml:4: node.a.run: /` + strings.Repeat("x", 96) + `/twinbd.sock is 109 bytes long; a socket's path may have 107; hint: choose a shorter directory`},
	{"no trust", `tls.insecure = true`, ``,
		`f.toml: tls.dir: is missing; expected the directory of the keys, e.g. "/etc/twinbd/tls"; hint: ` + "`twinbd init`" + ` makes the keys; a lab may say insecure = true`},
	{"both trusts", `tls.insecure = true`, `tls = { insecure = true, dir = "/k" }`,
		`f.toml:2: tls.insecure: contradicts tls.dir; hint: remove one of the two`},
	{"witness", "", "[witness]\naddress = [\"10.0.0.3\", \"10.0.0.1:7800\"]\nping = [\"router\"]",
		`f.toml:11: witness.address[0]: "10.0.0.3" is no address; expected HOST:PORT, e.g. 10.0.0.3:7801
f.toml:11: witness.address: 10.0.0.1:7800 is already in node.a.address
f.toml:12: witness.ping[0]: "router" is no router's address; expected an IP, e.g. 10.0.0.254
f.toml:12: witness.ping: stands in for a witness, so it cannot be set together with address; hint: keep address, which is the safe one`},
	{"console", "", "[console]\nlisten = \"0.0.0.0:7800\"",
		`f.toml:11: console.listen: 0.0.0.0:7800 is already used by node.a.address
f.toml:11: console.listen: 0.0.0.0:7800 is already used by node.b.address`},
	{"two judges", "", "[service.s]\nfence = \"power off\"\n[witness]\naddress = [\"10.0.0.3:7801\"]",
		`f.toml:11: service.s.fence: decides where there is neither witness nor ping; two judges could decide for both nodes; hint: remove it, or remove [witness]`},
	{"words", "", "[service.s]\nprefer = \"c\"\nfailback = \"yes\"\nlone = \"continue\"\npace = \"slow\"",
		`f.toml:11: service.s.prefer: there is no node "c"
f.toml:12: service.s.failback: "yes" is unknown; expected "manual" or "auto"
f.toml:13: service.s.lone: has a meaning only with a witness; hint: remove it, or add [witness]
f.toml:14: service.s.pace: "slow" is unknown; expected "normal" or "fast" or "safe"`},
	{"failback to nowhere", "", "[service.s]\nfailback = \"auto\"",
		`f.toml:11: service.s.failback: is "auto", but no node is preferred; hint: set prefer, or failback = "manual"`},
	{"pace too tight", "", "[service.s]\npace = { heartbeat = \"250ms\", timeout = \"500ms\" }",
		`f.toml:11: service.s.pace.timeout: 500ms is too short for a heartbeat of 250ms; expected at least 750ms, so that one lost packet loses no node`},
	{"pace half", "", "[service.s]\npace = { heartbeat = \"1ms\" }\npeer-timeout = \"5 s\"",
		`f.toml:11: service.s.pace.timeout: is missing; heartbeat and timeout are set together
f.toml:11: service.s.pace.heartbeat: 1ms is out of range; expected 10ms to 1m
f.toml:12: service.s.peer-timeout: unknown unit " s" in "5 s"; expected ms, s, m or h, e.g. 250ms`},
	{"check", "", "[service.s]\ncheck = { every = \"soon\", failures = 0 }\nstart = \"now\"\nstop = [\"\"]",
		`f.toml:11: service.s.check.command: is missing; expected a command, e.g. "pg_isready -q"
f.toml:11: service.s.check.every: "soon" is no whole number with a unit; expected e.g. 250ms
f.toml:11: service.s.check.failures: 0 is out of range; expected 1 to 1000
f.toml:12: service.s.start: is text; expected a list: a command, e.g. "systemctl start postgresql"
f.toml:13: service.s.stop[0]: is empty; expected a command, e.g. "systemctl start postgresql"`},
	{"ip", "", "[service.s]\nip = [\"10.0.0.9\", \"10.0.0.9/24@\", \"10.0.0.1/24\", \"10.0.0.9/24\", \"10.0.0.9/16@eth1\", \"0.0.0.0/0\"]",
		`f.toml:11: service.s.ip[0]: "10.0.0.9" is no address; expected ADDRESS/BITS, e.g. 10.0.0.100/24 or 10.0.0.100/24@eth1
f.toml:11: service.s.ip[1]: "" is no interface; expected e.g. 10.0.0.9/24@eth1
f.toml:11: service.s.ip[5]: 0.0.0.0 cannot be an address of this kind; expected one host's, e.g. 10.0.0.100/24
f.toml:11: service.s.ip: 10.0.0.1 is already in node.a.address
f.toml:11: service.s.ip: 10.0.0.9 is already in service.s.ip`},
	{"no service", "[service.s.volume.v]\nsize = \"1GiB\"\ndisk = \"/data/v.img\"\n", ``,
		`f.toml: service: there must be at least one [service.NAME] table`},
	{"no volume", "[service.s.volume.v]\nsize = \"1GiB\"\ndisk = \"/data/v.img\"\n", `[service.s]`,
		`f.toml:7: service.s.volume: there must be at least one [service.s.volume.NAME] table`},
	{"everything missing", base, ``,
		`f.toml: cluster: is missing; expected the cluster's name
f.toml: node: there must be exactly two [node.NAME] tables; found none
f.toml: tls.dir: is missing; expected the directory of the keys, e.g. "/etc/twinbd/tls"; hint: ` + "`twinbd init`" + ` makes the keys; a lab may say insecure = true
f.toml: service: there must be at least one [service.NAME] table`},
}

const oneMachineHint = "the nodes have an address in common, so they are on one machine: put {node} into the value, or give each node its own"

func TestRefusals(t *testing.T) {
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			text := base + tt.new + "\n"
			if tt.old != "" {
				if !strings.Contains(base, tt.old) {
					t.Fatalf("base has no %q", tt.old)
				}
				text = strings.Replace(base, tt.old, tt.new, 1)
			}
			_, err := Parse("f.toml", []byte(text))
			if err == nil {
				t.Fatalf("taken:\n%s", text)
			}
			if got := err.Error(); got != tt.want {
				t.Errorf("got:\n%s\nwant:\n%s", got, tt.want)
			}
			if _, ok := err.(Problems); !ok {
				t.Errorf("error is a %T, want Problems", err)
			}
		})
	}
}
