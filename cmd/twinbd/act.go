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
	client := control.NewClient(self.ControlSocket())
	defer client.Close()
	p := newProgress(c.ErrOrStderr())
	defer p.end()
	return client.Act(c.Context(), a, p.update)
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
