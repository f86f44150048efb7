// SPDX-License-Identifier: Apache-2.0

package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"text/template"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
	"github.com/twinbd/twinbd/internal/freeport"
)

// What the configuration calls things.
const (
	serviceName = "demo"
	volumeName  = "data"
)

// pair is two nodes and a witness. Which node is primary changes with the
// story.
type pair struct {
	binary, dir, config string
	text                []byte // of the configuration
	cfg                 *config.Config
	outlive             bool
	witness             *process // nil until it is started
	primary, secondary  *member
}

// longestSocket is the longest path of a Unix socket, in bytes, without the
// zero behind it; unix(7).
const longestSocket = 107

// newPair writes the configuration into dir, an absolute path. Nothing runs yet.
func newPair(binary, dir string, l layout, outlive bool) (*pair, error) {
	if longest := filepath.Join(dir, "alpha", "twinbd.sock"); len(longest) > longestSocket {
		return nil, &control.Refusal{
			Message: fmt.Sprintf("%s is too long for the path of a socket, by %d bytes", longest, len(longest)-longestSocket),
			Hint:    "say --dir DIR, a shorter one, for example /tmp",
		}
	}
	p := &pair{binary: binary, dir: dir, config: filepath.Join(dir, "twinbd.toml"), outlive: outlive}
	if err := p.configure(l); err != nil {
		return nil, err
	}
	p.primary, p.secondary = newMember(p, "alpha"), newMember(p, "beta")
	return p, nil
}

var configTemplate = template.Must(template.New("").Parse(`cluster = "demo"

[node.alpha]
address = ["127.0.0.1:{{index .Ports 0}}"]
state = "{{.Dir}}/alpha"
run = "{{.Dir}}/alpha"

[node.beta]
address = ["127.0.0.1:{{index .Ports 1}}"]
state = "{{.Dir}}/beta"
run = "{{.Dir}}/beta"

[witness]
address = ["127.0.0.1:{{index .Ports 2}}"]

[tls]
dir = "{{.Dir}}/tls"

[service.demo]
pace = "fast"    # a silent primary is taken over after about a second

[service.demo.volume.data]
size = "{{.Size}}"
disk = "{{.Dir}}/{node}/data.img"
export = "unix:{{.Dir}}/{node}/data.sock"
region = "{{.Region}}"
intents = {{.Intents}}    # regions: at most {{.Most}} are copied after a crash of the primary
`))

func (p *pair) configure(l layout) error {
	ports, err := freeport.Find(3)
	if err != nil {
		return err
	}
	var text bytes.Buffer
	err = configTemplate.Execute(&text, map[string]any{
		"Dir": filepath.ToSlash(p.dir), "Ports": ports, "Size": config.FormatSize(l.size),
		"Region": config.FormatSize(region), "Intents": intents, "Most": config.FormatSize(intents * region),
	})
	if err != nil {
		return fmt.Errorf("make configuration: %w", err)
	}
	p.text = text.Bytes()
	if err := os.WriteFile(p.config, p.text, 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	p.cfg, err = config.Load(p.config)
	return err
}

// startWitness returns when the witness listens.
func (p *pair) startWitness(ctx context.Context) error {
	argv := []string{p.binary, "witness", "--config", p.config, "--state", filepath.Join(p.dir, "witness")}
	var err error
	if p.witness, err = spawn("witness", filepath.Join(p.dir, "witness.log"), p.outlive, argv); err != nil {
		return err
	}
	return p.witness.until(ctx, func(context.Context) error {
		text, err := os.ReadFile(p.witness.log)
		if err == nil && !bytes.Contains(text, []byte("witness ready")) {
			err = errors.New("it does not say that it is ready")
		}
		return err
	})
}

// exchange makes the secondary what the story calls primary, and the reverse.
func (p *pair) exchange() { p.primary, p.secondary = p.secondary, p.primary }

// stop ends all processes, the secondary first: a primary that stops first would
// hand over to it.
func (p *pair) stop() error {
	return errors.Join(p.secondary.process.stop(), p.primary.process.stop(), p.witness.stop())
}
