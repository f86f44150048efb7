// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"text/template"

	"github.com/twinbd/twinbd/internal/freeport"
)

// pair is two twinbd nodes, alpha as primary, and a witness where wanted.
type pair struct {
	servers
	binary  string
	tls     bool
	witness bool
}

// The exit codes of `twinbd status --exit-code` for the states of a node.
const (
	statePrimary   = 13
	stateSecondary = 14
)

func (p *pair) start(ctx context.Context) error {
	if err := p.makeDirs(); err != nil {
		return err
	}
	if err := p.writeConfig(); err != nil {
		return err
	}
	if p.tls {
		if err := p.command(ctx, "", "init"); err != nil {
			return err
		}
	}
	for _, node := range []string{"alpha", "beta"} {
		if err := p.command(ctx, node, "create", "--blank"); err != nil {
			return err
		}
		// Both disks are zeroes and stay so; only the page cache changes.
		if err := p.fill(p.disk(node)); err != nil {
			return err
		}
	}
	return p.serve(ctx)
}

// serve starts the processes and makes alpha the primary.
func (p *pair) serve(ctx context.Context) error {
	if p.witness {
		if err := p.spawn(ctx, "witness", started, p.argv("", "witness", "--state", filepath.Join(p.work, "witness"))...); err != nil {
			return err
		}
	}
	for _, node := range []string{"beta", "alpha"} {
		answers := func() error { return p.command(ctx, node, "status") }
		if err := p.spawn(ctx, node, answers, p.argv(node, "serve")...); err != nil {
			return err
		}
	}
	if err := p.command(ctx, "alpha", "prim", "bench"); err != nil {
		return err
	}
	alpha := p.procs[len(p.procs)-1]
	for node, code := range map[string]int{"alpha": statePrimary, "beta": stateSecondary} {
		if err := alpha.ready(ctx, func() error { return p.inState(ctx, node, code) }); err != nil {
			return err
		}
	}
	return alpha.ready(ctx, accepts("unix", p.socket()))
}

// started is the try for a server of which nothing more is known.
func started() error { return nil }

func (p *pair) socket() string { return filepath.Join(p.work, "alpha", "bench.sock") }

func (p *pair) uri() string { return "nbd+unix:///?socket=" + p.socket() }

func (p *pair) config() string { return filepath.Join(p.work, "twinbd.toml") }

func (p *pair) disk(node string) string { return filepath.Join(p.disks, node, "bench.img") }

func (p *pair) argv(node string, args ...string) []string {
	argv := []string{p.binary, "--config", p.config()}
	if node != "" {
		argv = append(argv, "--node", node)
	}
	return append(argv, args...)
}

// command runs a twinbd command to its end.
func (p *pair) command(ctx context.Context, node string, args ...string) error {
	argv := p.argv(node, args...)
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	if err != nil {
		said := strings.ReplaceAll(strings.TrimSpace(string(out)), "\n", "; ")
		return fmt.Errorf("twinbd %s on %s: %w: %s", strings.Join(args, " "), cmp.Or(node, "either node"), err, said)
	}
	return nil
}

// inState returns an error unless the node is in the state of the exit code.
func (p *pair) inState(ctx context.Context, node string, code int) error {
	err := p.command(ctx, node, "status", "--exit-code", "bench")
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == code {
		return nil
	}
	return fmt.Errorf("state of %s is not %d: %w", node, code, err)
}

// audit compares the two disks: a pair that did not replicate has won nothing.
func (p *pair) audit() error { return compareFiles(p.disk("alpha"), p.disk("beta"), p.size) }

// compareFiles returns an error that names the first MiB in which the first
// size bytes of two files differ.
func compareFiles(a, b string, size int64) error {
	left, err := os.Open(a)
	if err != nil {
		return fmt.Errorf("compare disks: %w", err)
	}
	defer left.Close()
	right, err := os.Open(b)
	if err != nil {
		return fmt.Errorf("compare disks: %w", err)
	}
	defer right.Close()
	x, y := make([]byte, 1<<20), make([]byte, 1<<20)
	for offset := int64(0); offset < size; offset += int64(len(x)) {
		n := min(int64(len(x)), size-offset)
		if _, err := io.ReadFull(left, x[:n]); err != nil {
			return fmt.Errorf("compare disks: read %s: %w", a, err)
		}
		if _, err := io.ReadFull(right, y[:n]); err != nil {
			return fmt.Errorf("compare disks: read %s: %w", b, err)
		}
		if !bytes.Equal(x[:n], y[:n]) {
			return fmt.Errorf("the disks of the pair differ in the MiB at offset %d", offset)
		}
	}
	return nil
}

var configTemplate = template.Must(template.New("config").Parse(`cluster = "bench"

[node.alpha]
address = ["127.0.0.1:{{.Alpha}}"]
state = "{{.Work}}/alpha"
run = "{{.Work}}/alpha"

[node.beta]
address = ["127.0.0.1:{{.Beta}}"]
state = "{{.Work}}/beta"
run = "{{.Work}}/beta"
{{if .Witness}}
[witness]
address = ["127.0.0.1:{{.Witness}}"]
{{end}}
[tls]
{{if .TLS}}dir = "{{.Work}}/tls"{{else}}insecure = true{{end}}

[service.bench.volume.bench]
size = "{{.MiB}}MiB"
disk = { alpha = "{{.Disks}}/alpha/bench.img", beta = "{{.Disks}}/beta/bench.img" }
export = "unix:{{.Work}}/{node}/bench.sock"
{{- if .Thin}}
thin = true
{{- end}}
`))

// writeConfig writes the file that both nodes and the witness read.
func (p *pair) writeConfig() error {
	var values struct {
		Work, Disks          string
		Alpha, Beta, Witness int
		MiB                  int64
		TLS, Thin            bool
	}
	values.Work, values.Disks = p.work, p.disks
	values.MiB, values.TLS, values.Thin = p.size>>20, p.tls, p.thin
	ports, err := freeport.Find(3)
	if err != nil {
		return err
	}
	values.Alpha, values.Beta = ports[0], ports[1]
	if p.witness {
		values.Witness = ports[2]
	}
	for _, dir := range []string{p.work, p.disks} {
		for _, node := range []string{"alpha", "beta"} {
			if err := os.MkdirAll(filepath.Join(dir, node), 0o700); err != nil {
				return fmt.Errorf("make directory of %s: %w", node, err)
			}
		}
	}
	var text bytes.Buffer
	if err := configTemplate.Execute(&text, values); err != nil {
		return fmt.Errorf("make configuration: %w", err)
	}
	if err := os.WriteFile(p.config(), text.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write configuration: %w", err)
	}
	return nil
}
