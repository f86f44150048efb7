// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/twinbd/twinbd/control"
	"github.com/twinbd/twinbd/internal/config"
)

// showStatus writes a status for a program or for a person.
func showStatus(w io.Writer, status *control.Status, asJSON bool) error {
	if asJSON {
		return printJSON(w, status)
	}
	var text bytes.Buffer
	fmt.Fprintf(&text, "node %s of cluster %s\n", status.Node, status.Cluster)
	for i := range status.Services {
		text.WriteString("\n")
		writeService(&text, &status.Services[i])
	}
	if _, err := text.WriteTo(w); err != nil {
		return fmt.Errorf("write status: %w", err)
	}
	return nil
}

func writeService(text *bytes.Buffer, s *control.ServiceStatus) {
	notes := []string{colourText(s.Colour), "not up to date"}
	if s.UpToDate {
		notes[1] = "up to date"
	}
	if s.Maintenance {
		notes = append(notes, "maintenance")
	}
	fmt.Fprintf(text, "%s  %s  %s, epoch %d\n", s.Name, s.State, strings.Join(notes, ", "), s.Epoch)
	if s.Reason != "" {
		fmt.Fprintf(text, "  %s\n", s.Reason)
	}
	fmt.Fprintf(text, "  peer %s\n", peerText(s.Peer))
	writeVolumes(text, s.Volumes)
}

func colourText(c control.Colour) string {
	if c == control.NotReady {
		return "not ready"
	}
	return string(c)
}

func peerText(p control.PeerStatus) string {
	line := p.Name + " " + p.Connection
	if p.Address != "" {
		line += " at " + p.Address
	}
	if p.State != "" {
		line += ", " + string(p.State)
	}
	if p.Problem != "" {
		line += ": " + p.Problem
	}
	return line
}

func writeVolumes(text *bytes.Buffer, volumes []control.VolumeStatus) {
	if len(volumes) == 0 {
		return
	}
	table := tabwriter.NewWriter(text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "  VOLUME\tSIZE\tDISK\tDIRTY\tGENERATION\tEXPORT")
	for _, v := range volumes {
		fmt.Fprintf(table, "  %s\t%s\t%s\t%s\t%s\t%s\n",
			v.Name, config.FormatSize(v.Size), v.Disk, humanBytes(v.DirtyBytes), orDash(v.Generation), orDash(v.Export))
	}
	table.Flush()
	for _, v := range volumes {
		if v.Device != "" {
			fmt.Fprintf(text, "  %s: %s %s\n", v.Name, v.Device, v.DeviceState)
		}
		if v.Resync != nil {
			fmt.Fprintf(text, "  %s: %s\n", v.Name, resyncText(v.Resync))
		}
		for _, p := range v.Problems {
			fmt.Fprintf(text, "  %s: %s\n", v.Name, p.Message)
			if p.Hint != "" {
				fmt.Fprintf(text, "  %s: hint: %s\n", v.Name, p.Hint)
			}
		}
	}
}

func resyncText(r *control.ResyncStatus) string {
	line := r.Kind
	if r.Source != "" {
		line += " from " + r.Source
	}
	line += fmt.Sprintf(": %d%%, %s of %s, %s/s", percent(r.Done, r.Total), humanBytes(r.Done), humanBytes(r.Total), humanBytes(r.Rate))
	if r.ETA >= 0 {
		line += ", " + humanDuration(time.Duration(r.ETA*float64(time.Second))) + " left"
	}
	return line
}

func orDash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}
