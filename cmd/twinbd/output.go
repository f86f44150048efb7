// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

// The rules for everything that is printed: the result goes to stdout, all else
// to stderr. An error is one line, "twinbd: …", and "hint: …" where there is a
// remedy. Nothing is asked when nobody sits there.

// printError writes an error for a person; the problems of a configuration one
// by one.
func printError(w io.Writer, err error) {
	if problems, ok := errors.AsType[config.Problems](err); ok {
		for _, p := range problems {
			printRefusal(w, control.Refuse(p))
		}
		return
	}
	printRefusal(w, control.Refuse(err))
}

func printRefusal(w io.Writer, r *control.Refusal) {
	fmt.Fprintf(w, "twinbd: %s\n", oneLine(r.Message))
	if r.Hint != "" {
		fmt.Fprintf(w, "hint: %s\n", oneLine(r.Hint))
	}
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// printJSON writes a value as indented JSON.
func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	if err := encoder.Encode(value); err != nil {
		return fmt.Errorf("write result: %w", err)
	}
	return nil
}

// confirm asks the user to type a word before something that loses data. Where
// nobody can be asked, the word must have come with a flag: given is its value.
func confirm(c *cobra.Command, question, word, flag, given string) error {
	hint := fmt.Sprintf("say --%s %s", flag, word)
	switch {
	case given == word:
		return nil
	case given != "":
		return &control.Refusal{Message: fmt.Sprintf("--%s says %q, not %q: nothing was done", flag, given, word), Hint: hint}
	case !stdinIsTerminal():
		return &control.Refusal{Message: "this needs a confirmation, and there is no terminal to ask at: nothing was done", Hint: hint}
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s\nType %s to go on: ", question, word)
	answer, err := bufio.NewReader(c.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read answer: %w", err)
	}
	if strings.TrimSpace(answer) != word {
		return &control.Refusal{Message: "not confirmed: nothing was done"}
	}
	return nil
}

// humanBytes writes about so many bytes: three digits and a unit.
func humanBytes(bytes int64) string {
	units := []string{"KiB", "MiB", "GiB", "TiB", "PiB"}
	if bytes < 1024 {
		return fmt.Sprintf("%dB", bytes)
	}
	value, unit := float64(bytes)/1024, 0
	for value >= 1000 && unit < len(units)-1 {
		value, unit = value/1024, unit+1
	}
	if value < 10 {
		return fmt.Sprintf("%.1f%s", value, units[unit])
	}
	return fmt.Sprintf("%.0f%s", value, units[unit])
}

// humanDuration writes about so long, in the two largest units that matter.
func humanDuration(d time.Duration) string {
	switch s := int64(d.Round(time.Second) / time.Second); {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	default:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
}
