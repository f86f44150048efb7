// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

// act asks this node to do something and shows how far it has come.
func act(c *cobra.Command, self *config.Node, a control.Action) error {
	p := newProgress(c.ErrOrStderr())
	defer p.end()
	return actWith(c, self, a, p.update)
}

func actWith(c *cobra.Command, self *config.Node, a control.Action, progress func(control.Progress)) error {
	client := control.NewClient(self.ControlSocket())
	defer client.Close()
	return client.Act(c.Context(), a, progress)
}

// tell is act of something whose last words are its result: they go to stdout.
func tell(c *cobra.Command, self *config.Node, a control.Action) error {
	p := newProgress(c.ErrOrStderr())
	var last control.Progress
	err := actWith(c, self, a, func(next control.Progress) {
		if last.Text != "" && last.Text != next.Text {
			p.update(last)
		}
		last = next
	})
	if err != nil && last.Text != "" {
		p.update(last)
	}
	p.end()
	if err == nil && last.Text != "" {
		_, err = fmt.Fprintln(c.OutOrStdout(), last.Text)
	}
	return err
}

// onService asks this node to do something with a service that is configured.
func onService(c *cobra.Command, a control.Action, ask func(*cobra.Command, *config.Node, control.Action) error) error {
	cfg, self, err := loadSelf(c)
	if err != nil {
		return err
	}
	if cfg.Service(a.Service) == nil {
		return noService(cfg, a.Service)
	}
	return ask(c, self, a)
}

// serviceOrVolume finds what a command is about: a service, or one of its
// volumes by its own name.
func serviceOrVolume(cfg *config.Config, name string) (control.Action, error) {
	if cfg.Service(name) != nil {
		return control.Action{Service: name}, nil
	}
	if v := cfg.Volume(name); v != nil {
		return control.Action{Service: v.Service, Volume: v.Name}, nil
	}
	return control.Action{}, fmt.Errorf("%q is neither a service nor a volume of the configuration; hint: %s", name, volumeNames(cfg))
}
