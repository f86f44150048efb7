// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

// base is the shortest configuration that is right.
const base = `cluster = "c"
tls.insecure = true
[node.a]
address = ["10.0.0.1:7800"]
[node.b]
address = ["10.0.0.2:7800"]
[service.s.volume.v]
size = "1GiB"
disk = "/data/v.img"
`

func parse(t *testing.T, text string) *Config {
	t.Helper()
	cfg, err := Parse("f.toml", []byte(text))
	if err != nil {
		t.Fatalf("parse:\n%v", err)
	}
	return cfg
}

func TestDefaults(t *testing.T) {
	cfg := parse(t, base)
	want := &Config{
		Cluster: "c",
		Nodes: []Node{
			{Name: "a", Address: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:7800")}, State: DefaultState, Run: DefaultRun},
			{Name: "b", Address: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.2:7800")}, State: DefaultState, Run: DefaultRun},
		},
		TLS: TLS{Insecure: true},
		Services: []Service{{
			Name: "s", Failback: FailbackManual, Lone: LoneFreeze,
			Pace:        Pace{Heartbeat: 250 * time.Millisecond, Timeout: 3 * time.Second},
			PeerTimeout: 5 * time.Second, DiskTimeout: 10 * time.Second,
			Volumes: []Volume{{
				Name: "v", Service: "s", Size: 1 << 30,
				Disk:    map[string]string{"a": "/data/v.img", "b": "/data/v.img"},
				Export:  map[string]Export{"a": {"unix", "/run/twinbd/v.sock"}, "b": {"unix", "/run/twinbd/v.sock"}},
				Intents: 4096, Region: 1 << 20,
			}},
		}},
	}
	if !reflect.DeepEqual(cfg, want) {
		t.Errorf("got  %+v\nwant %+v", cfg, want)
	}
}

func TestSampleIsRightAndSaysEverything(t *testing.T) {
	cfg := parse(t, Sample())
	s, v := cfg.Service("postgres"), cfg.Volume("pgdata")
	switch {
	case cfg.Cluster != "systel", len(cfg.Node("alpha").Address) != 2, cfg.Witness.Address[0] != "10.0.0.3:7801":
		t.Error("cluster, nodes or witness differ from what the sample says")
	case s.Prefer != "alpha", s.IP[0].String() != "10.0.0.100/24", s.Check.Restarts != 2, len(s.Start) != 1:
		t.Error("the service differs from what the sample says")
	case v.Size != 10<<30, v.Disk["beta"] != "/var/lib/twinbd/pgdata.img", v.Device["alpha"] != "/dev/nbd0", v.Mount.Type != "ext4":
		t.Error("the volume differs from what the sample says")
	}
	// What the sample shows as a default must be the default.
	uncommented := strings.NewReplacer(
		"# state =", "state =", "# run   =", "run   =", "# peer-timeout", "peer-timeout", "# disk-timeout", "disk-timeout",
		"# thin ", "thin ", "# region ", "region ", "# intents ", "intents ",
	).Replace(Sample())
	if diff := Diff(cfg.Values(), parse(t, uncommented).Values()); len(diff) > 0 {
		t.Errorf("the sample shows wrong defaults for %v", diff)
	}
	// Every key that a file may have is in the sample.
	for _, keys := range [][]string{
		fieldKeys(Config{}), fieldKeys(Node{}), fieldKeys(Witness{}), fieldKeys(TLS{}), fieldKeys(Console{}), fieldKeys(Service{}),
		fieldKeys(Pace{}), fieldKeys(Check{}), fieldKeys(Volume{}), fieldKeys(Mount{}),
	} {
		for _, key := range keys {
			if !strings.Contains(Sample(), key+" ") && !strings.Contains(Sample(), key+"]") && !strings.Contains(Sample(), key+".") {
				t.Errorf("the sample does not mention %q", key)
			}
		}
	}
}

func fieldKeys(table any) []string {
	var keys []string
	for i := range reflect.TypeOf(table).NumField() {
		if key := reflect.TypeOf(table).Field(i).Tag.Get("toml"); key != "-" {
			keys = append(keys, key)
		}
	}
	return keys
}

func TestTwoNodesOnOneMachine(t *testing.T) {
	cfg := parse(t, `cluster = "demo"
console.listen = { a = "127.0.0.1:7880", b = "127.0.0.1:7881" }
[tls]
insecure = true
[node]
a = { address = ["127.0.0.1:7800"], state = "/d/{node}", run = "/d/{node}" }
b = { address = ["127.0.0.1:7801"], state = "/d/{node}", run = "/d/{node}" }
[service.s]
pace = { heartbeat = "50ms", timeout = "150ms" }
[service.s.volume.v]
size = "64MiB"
disk = "/d/{node}/v.img"
export = { a = "tcp:127.0.0.1:10809", b = "tcp:127.0.0.1:10810" }
device = { a = "/dev/nbd0", b = "/dev/nbd1" }
mount = { at = "/mnt/{node}", type = "ext4" }
`)
	v := cfg.Volume("v")
	for got, want := range map[string]string{
		cfg.Node("a").ControlSocket():     "/d/a/twinbd.sock",
		cfg.Peer("a").Name:                "b",
		cfg.Peer("b").Name:                "a",
		v.Disk["b"]:                       "/d/b/v.img",
		v.Export["b"].URI("v"):            "nbd://127.0.0.1:10810/v",
		v.Mount.At["a"]:                   "/mnt/a",
		v.Service:                         "s",
		cfg.Console.Listen["b"]:           "127.0.0.1:7881",
		strings.Join(cfg.KeyNames(), " "): "a b witness admin",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if cfg.Node("c") != nil || cfg.Peer("c") != nil || cfg.Service("x") != nil || cfg.Volume("x") != nil {
		t.Error("found what is not there")
	}
}

func TestExportURI(t *testing.T) {
	for text, want := range map[string]string{
		"unix:/run/a b/v.sock": "nbd+unix:///v?socket=/run/a%20b/v.sock",
		"tcp:localhost:10809":  "nbd://localhost:10809/v",
		"tcp:[::1]:10809":      "nbd://[::1]:10809/v",
		"tcp:10.0.0.1:10809":   "nbds://10.0.0.1:10809/v",
		"tcp:0.0.0.0:10809":    "nbds://0.0.0.0:10809/v",
	} {
		e, err := ParseExport(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := e.URI("v"); got != want || e.String() != text {
			t.Errorf("%s: got %q from %q, want %q", text, got, e.String(), want)
		}
	}
}

func TestLoad(t *testing.T) {
	file := filepath.Join(t.TempDir(), "f.toml")
	if _, err := Load(file); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "hint: ") {
		t.Errorf("missing file: %v", err)
	}
	if err := os.WriteFile(file, []byte(base), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(file); err != nil {
		t.Error(err)
	}
	_, err := Parse(file, []byte(strings.Repeat("# long\n", maxFile/7+1)))
	if err == nil || !strings.Contains(err.Error(), "larger than 1MiB") {
		t.Errorf("oversized file: %v", err)
	}
}

func TestSelf(t *testing.T) {
	cfg := parse(t, base)
	t.Setenv(NodeVariable, "b")
	if n, err := cfg.Self(""); err != nil || n.Name != "b" {
		t.Errorf("from the environment: %v, %v", n, err)
	}
	if n, err := cfg.Self("a"); err != nil || n.Name != "a" {
		t.Errorf("from the flag: %v, %v", n, err)
	}
	_, err := cfg.Self("gamma")
	want := `this node would be "gamma", but the configuration has a and b; hint: give --node NAME or set TWINBD_NODE`
	if err == nil || err.Error() != want {
		t.Errorf("got %v", err)
	}
	t.Setenv(NodeVariable, "")
	host, err := os.Hostname()
	if err != nil {
		t.Skip("this machine has no host name")
	}
	if name, err := SelfName(""); err != nil || !strings.HasPrefix(strings.ToLower(host), name) || strings.Contains(name, ".") {
		t.Errorf("from host name %q: %q, %v", host, name, err)
	}
}

func TestDigest(t *testing.T) {
	cfg := parse(t, base)
	reordered := parse(t, "# another comment\n"+strings.Replace(base, `tls.insecure = true`, `tls = { insecure = true }`, 1))
	if cfg.Digest() != reordered.Digest() {
		t.Errorf("spelling makes a difference: %v", Diff(cfg.Values(), reordered.Values()))
	}
	changed := parse(t, strings.Replace(base, `size = "1GiB"`, "size = \"2GiB\"\nthin = true", 1)+
		"[service.s]\nip = [\"10.0.0.9/24\"]\ncheck.command = \"true\"\n")
	want := []string{
		"service.s.check.command", "service.s.check.every", "service.s.check.failures", "service.s.check.restarts",
		"service.s.check.timeout", "service.s.ip", "service.s.volume.v.size", "service.s.volume.v.thin",
	}
	if got := Diff(cfg.Values(), changed.Values()); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if cfg.Digest() == changed.Digest() {
		t.Error("different configurations have one digest")
	}
	if got := cfg.Values()["service.s.volume.v.disk.b"]; got != "/data/v.img" {
		t.Errorf("disk of b is %q among the values", got)
	}
}
