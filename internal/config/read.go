// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"
)

// Load reads and checks a file. It returns Problems when the file can be read
// but is wrong.
func Load(file string) (*Config, error) {
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read configuration: %w; hint: name one with --config FILE; `twinbd sample` prints one to start from", err)
	}
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	return Parse(file, data)
}

// Parse is Load of bytes; file is their name in messages. Any error is a
// Problems.
func Parse(file string, data []byte) (*Config, error) {
	doc := parseDocument(file, data)
	if len(doc.problems) > 0 {
		return nil, doc.problems
	}
	r := reader{doc: doc, cfg: &Config{}}
	r.readAll()
	r.checkRules()
	if len(doc.problems) > 0 {
		return nil, doc.problems.sorted()
	}
	return r.cfg, nil
}

// reader fills a Config from a document.
type reader struct {
	doc   *document
	cfg   *Config
	nodes []string // the nodes' names, known before anything that refers to them
}

func (r *reader) readAll() {
	root := &section{doc: r.doc, values: r.doc.root}
	r.cfg.Cluster = root.required("cluster", "the cluster's name")
	if r.cfg.Cluster != "" {
		r.checkName(root, "cluster", r.cfg.Cluster)
	}
	r.readNodes(root)
	r.readWitness(root.table("witness"))
	r.readTLS(root.table("tls"))
	r.readConsole(root.table("console"))
	r.readServices(root)
	root.end()
}

func (r *reader) checkName(s *section, key, name string) {
	if err := CheckName(name); err != nil {
		s.fault(key, "", "%v", err)
	}
}

func (r *reader) readNodes(root *section) {
	tables := root.tables("node")
	r.nodes = slices.Sorted(maps.Keys(tables))
	if len(tables) != 2 {
		found := "none"
		if len(tables) > 0 {
			found = strings.Join(r.nodes, ", ")
		}
		root.fault("node", "", "there must be exactly two [node.NAME] tables; found %s", found)
	}
	for _, name := range r.nodes {
		s := tables[name]
		r.checkName(s, "", name)
		if name == WitnessName || name == AdminName {
			s.fault("", "choose another name", "%q is what the keys of the %s are filed under", name, name)
		}
		r.cfg.Nodes = append(r.cfg.Nodes, r.readNode(name, s))
	}
}

func (r *reader) readNode(name string, s *section) Node {
	n := Node{
		Name:  name,
		State: r.readDir(s, "state", DefaultState, name),
		Run:   r.readDir(s, "run", DefaultRun, name),
	}
	if socket := n.ControlSocket(); len(socket) > maxSocketPath {
		s.fault("run", "choose a shorter directory", "%s is %d bytes long; a socket's path may have %d", socket, len(socket), maxSocketPath)
	}
	const expected = "IP:PORT, e.g. 10.0.0.1:7800"
	s.each("address", expected, func(text string) error {
		address, err := parseAddress(text)
		if err == nil && (address.Addr().IsUnspecified() || address.Addr().IsMulticast()) {
			err = fmt.Errorf("%s is no address of one node; expected %s", address, expected)
		}
		if err == nil {
			n.Address = append(n.Address, address)
		}
		return err
	})
	if !s.has("address") || isEmptyList(s.values["address"]) {
		s.fault("address", "", "is missing; expected a list of %s", expected)
	}
	s.end()
	return n
}

func (r *reader) readDir(s *section, key, fallback, node string) string {
	dir := expand(s.text(key, fallback, "an absolute path"), node)
	if err := checkPath(dir); err != nil {
		s.fault(key, "", "%v", err)
		return fallback
	}
	return path.Clean(dir)
}

func (r *reader) readWitness(s *section) {
	w := &r.cfg.Witness
	s.each("address", "HOST:PORT, e.g. 10.0.0.3:7801", func(text string) error {
		w.Address = append(w.Address, text)
		return checkHostPort(text)
	})
	s.each("ping", "a router's IP, e.g. 10.0.0.254", func(text string) error {
		ip, err := netip.ParseAddr(text)
		if err != nil || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() {
			return fmt.Errorf("%q is no router's address; expected an IP, e.g. 10.0.0.254", text)
		}
		w.Ping = append(w.Ping, ip.Unmap())
		return nil
	})
	if s.has("address") && s.has("ping") {
		s.fault("ping", "keep address, which is the safe one", "stands in for a witness, so it cannot be set together with address")
	}
	s.end()
}

func (r *reader) readTLS(s *section) {
	t := &r.cfg.TLS
	t.Insecure = s.flag("insecure")
	t.Dir = s.text("dir", "", "an absolute path")
	if isText(s.values["dir"]) {
		if err := checkPath(t.Dir); err != nil {
			s.fault("dir", "", "%v", err)
		} else {
			t.Dir = path.Clean(t.Dir)
		}
	}
	switch {
	case t.Insecure && s.has("dir"):
		s.fault("insecure", "remove one of the two", "contradicts tls.dir")
	case !t.Insecure && !s.has("dir"):
		s.fault("dir", "`twinbd init` makes the keys; a lab may say insecure = true", `is missing; expected the directory of the keys, e.g. "/etc/twinbd/tls"`)
	}
	s.end()
}

func (r *reader) readConsole(s *section) {
	check := func(text string) error { _, err := parseAddress(text); return err }
	r.cfg.Console.Listen = s.perNode("listen", r.nodes, "IP:PORT", check)
	s.end()
}

func isEmptyList(value any) bool {
	list, ok := value.([]any)
	return ok && len(list) == 0
}
