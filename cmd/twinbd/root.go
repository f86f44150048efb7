// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/internal/config"
)

// commands are all there are, in the order in which help lists them.
var commands = []func() *cobra.Command{
	newInitCommand,
	newSampleCommand,
	newCheckCommand,
	newCreateCommand,
	newInspectCommand,
	newServeCommand,
	newWitnessCommand,
	newStatusCommand,
	newWhyCommand,
	newEventsCommand,
	newDoctorCommand,
	newStartCommand,
	newStopCommand,
	newSwitchCommand,
	newPrimCommand,
	newPrimforceCommand,
	newResolveCommand,
	newMaintenanceCommand,
	newWaitCommand,
	newAttachCommand,
	newDetachCommand,
	newVerifyCommand,
	newResyncCommand,
	newDemoCommand,
	newCompletionCommand,
	newVersionCommand,
}

// Exit codes. `status --exit-code` has its own on top (exitCode).
const (
	exitDone    = 0
	exitRefused = 1 // refused or failed; one line on stderr says why
	exitUsage   = 2 // wrong use
)

// exitCode is the error of a command that has said what it has to say, and
// only ends with a code.
type exitCode int

func (e exitCode) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// runError is an error of a command that was called rightly. Every other error
// comes from cobra and is wrong use.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "twinbd",
		Short: "a block device on two servers that survives either of them",
		Long: `twinbd keeps one block device alive on two ordinary servers. Every write is on
both disks before it is acknowledged; when a server dies, the other goes on.

Exit codes: 0 done, 1 refused or failed, 2 wrong use.`,
		SilenceErrors:      true,
		SilenceUsage:       true,
		DisableSuggestions: true, // usageError makes them
		CompletionOptions:  cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SuggestionsMinimumDistance = 2
	cobra.EnableCommandSorting = false
	flags := root.PersistentFlags()
	flags.String("config", config.DefaultFile, "configuration `file`")
	flags.String("node", "", "`name` of this node (default $"+config.NodeVariable+", else the host name)")
	for _, newCommand := range commands {
		c := newCommand()
		markErrors(c)
		root.AddCommand(c)
	}
	return root
}

// markErrors makes a runError of every error that a command returns.
func markErrors(c *cobra.Command) {
	for _, sub := range c.Commands() {
		markErrors(sub)
	}
	if inner := c.RunE; inner != nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			if err := inner(c, args); err != nil {
				return runError{err}
			}
			return nil
		}
	}
}

// execute runs a command line, says what went wrong on stderr, and returns the
// exit code.
func execute(ctx context.Context, root *cobra.Command, args []string) int {
	root.SetArgs(args)
	c, err := root.ExecuteContextC(ctx)
	if err == nil {
		return exitDone
	}
	if _, called := errors.AsType[runError](err); !called {
		printError(c.ErrOrStderr(), usageError(c, args, err))
		return exitUsage
	}
	if code, ok := errors.AsType[exitCode](err); ok {
		return int(code)
	}
	if _, ok := errors.AsType[usage](err); ok {
		printError(c.ErrOrStderr(), usageError(c, args, err))
		return exitUsage
	}
	printError(c.ErrOrStderr(), err)
	return exitRefused
}

// usage is the error of a command that finds by itself that it was called
// wrongly.
type usage struct{ error }

// usageError adds what would have been right.
func usageError(c *cobra.Command, args []string, err error) error {
	if strings.Contains(err.Error(), "; hint: ") {
		return err
	}
	if !c.HasParent() && len(args) > 0 {
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return fmt.Errorf("%w; hint: did you mean `%s %s`?", err, c.Name(), near[0])
		}
	}
	return fmt.Errorf("%w; hint: see `%s --help`", err, c.CommandPath())
}

// loadConfig reads the configuration that --config names.
func loadConfig(c *cobra.Command) (*config.Config, error) {
	return config.Load(c.Flag("config").Value.String())
}

// loadSelf reads the configuration and says which of its nodes this one is.
func loadSelf(c *cobra.Command) (*config.Config, *config.Node, error) {
	cfg, err := loadConfig(c)
	if err != nil {
		return nil, nil, err
	}
	node, err := cfg.Self(c.Flag("node").Value.String())
	return cfg, node, err
}

// completeService offers the services of the configuration for a first argument.
func completeService(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var names []string
	if cfg, err := loadConfig(c); err == nil && len(args) == 0 {
		for _, s := range cfg.Services {
			names = append(names, s.Name)
		}
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}

// stdinIsTerminal says whether there is somebody to ask.
func stdinIsTerminal() bool { return isTerminal(os.Stdin) }
