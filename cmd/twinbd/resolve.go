// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

func newResolveCommand() *cobra.Command {
	var keep, confirmed string
	c := &cobra.Command{
		Use:   "resolve VOLUME",
		Short: "end a split brain: keep one node's data, save the other's",
		Long: `End a split brain of a volume: both nodes have writes that the other lacks. It shows
what each has. With --keep NODE that node's data is kept; the blocks that the other
has written since the split are saved to a file there, durably, and then
overwritten from the node that is kept. Before that it asks for the volume's name.
Disks without any history in common are resolved the same way: all of the one that
is not kept is saved, then overwritten. The node that is not kept must not serve. ` + "`twinbd inspect --file`" + ` reads the file.`,
		Example: `  twinbd resolve pgdata
  twinbd resolve pgdata --keep alpha
  twinbd resolve pgdata --keep alpha --volume pgdata`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeVolume,
		RunE: func(c *cobra.Command, args []string) error {
			return runResolve(c, args[0], keep, confirmed)
		},
	}
	c.Flags().StringVar(&keep, "keep", "", "`node` whose data is kept; without it both sides are only shown")
	c.Flags().StringVar(&confirmed, "volume", "", "`name` of the volume, to confirm without a terminal")
	c.RegisterFlagCompletionFunc("keep", completeNode)
	return c
}

func runResolve(c *cobra.Command, name, keep, confirmed string) error {
	cfg, self, err := loadSelf(c)
	if err != nil {
		return err
	}
	v := cfg.Volume(name)
	if v == nil {
		return fmt.Errorf("volume %q is not in the configuration; hint: %s", name, volumeNames(cfg))
	}
	if keep != "" && cfg.Node(keep) == nil {
		return fmt.Errorf("node %q is not in the configuration; hint: it has %s and %s", keep, cfg.NodeNames()[0], cfg.NodeNames()[1])
	}
	split, err := askSplit(c, self, v)
	if err != nil {
		return err
	}
	if err := showSplit(c.OutOrStdout(), split); err != nil || keep == "" {
		return err
	}
	loser := split.Side(cfg.Peer(keep).Name)
	if loser == nil {
		return fmt.Errorf("the node did not say what %s has; hint: its version may be another one", cfg.Peer(keep).Name)
	}
	lost := fmt.Sprintf("What %s has written since (%s in %s)", loser.Node, humanBytes(loser.Bytes), count(int(loser.Blocks), "block"))
	if loser.Whole {
		lost = fmt.Sprintf("All that %s has (%s)", loser.Node, humanBytes(loser.Bytes))
	}
	question := fmt.Sprintf("The data of %s is kept. %s is saved to a file on %s and then overwritten.", keep, lost, loser.Node)
	if err := confirm(c, question, v.Name, "volume", confirmed); err != nil {
		return err
	}
	return tell(c, self, control.Action{
		Verb: "resolve", Service: v.Service, Volume: v.Name,
		Args: map[string]string{"keep": keep, "generation": loser.Generation}, // of what was shown, and of nothing else
	})
}

// askSplit asks the node what each side has.
func askSplit(c *cobra.Command, self *config.Node, v *config.Volume) (*control.Split, error) {
	var split *control.Split
	err := actWith(c, self, control.Action{Verb: "split", Service: v.Service, Volume: v.Name}, func(p control.Progress) {
		if p.Split != nil {
			split = p.Split
		}
	})
	if err == nil && split == nil {
		err = fmt.Errorf("the node said nothing of the split; hint: its version may be another one")
	}
	return split, err
}

// showSplit writes both sides for a person.
func showSplit(w io.Writer, split *control.Split) error {
	var text bytes.Buffer
	fmt.Fprintf(&text, "volume %s of service %s: %s\n", split.Volume, split.Service, split.Reason())
	table := tabwriter.NewWriter(&text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  NODE\tOF ITS OWN\tBLOCKS\tSERVES\tAPART SINCE\tLAST WRITE\tGENERATION\tPARTED FROM")
	for _, s := range split.Sides {
		serves := "no"
		if s.Serves {
			serves = "yes"
		}
		fmt.Fprintf(table, "  %s\t%s\t%d\t%s\t%s\t%s\t%.8s\t%.8s\n",
			s.Node, humanBytes(s.Bytes), s.Blocks, serves, timeText(s.Apart), timeText(s.LastWrite), s.Generation, s.Base)
	}
	table.Flush()
	for _, s := range split.Sides {
		if s.Forced != "" {
			fmt.Fprintf(&text, "  %s: %s\n", s.Node, s.Forced)
		}
	}
	if _, err := text.WriteTo(w); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

func timeText(t time.Time) string {
	if t.IsZero() {
		return "not known"
	}
	return t.Local().Format("2006-01-02 15:04:05")
}

func completeNode(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	cfg, err := loadConfig(c)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return cfg.NodeNames(), cobra.ShellCompDirectiveNoFileComp
}
