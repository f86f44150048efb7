// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/twinbd/twinbd"

// anything says that a room may import every other.
var anything = []string{"*"}

// rooms says what each room may import, itself aside, at any depth. The rooms
// that do the work know only the leaf; internal/node joins them; programs and
// tests stand on top, and nothing stands on them. A new room is entered here.
var rooms = map[string][]string{
	"nbd":      {"internal/block", "internal/crowd"},
	"bitmap":   {"internal/block"},
	"vip":      {"internal/block"},
	"failover": {"internal/block", "internal/crowd"},
	"control":  {"internal/block", "internal/crowd"},
	"mirror":   {"bitmap", "internal/block"},

	"internal/block":  {},
	"internal/crowd":  {},
	"internal/loop":   {"internal/block"},
	"internal/config": {"internal/block"},
	"internal/trust":  {},

	"internal/node": {"nbd", "bitmap", "vip", "failover", "control", "mirror",
		"internal/block", "internal/crowd", "internal/loop", "internal/config", "internal/trust"},

	"internal/demo":     anything, // it is a user of the whole
	"internal/freeport": {},       // of the demo, the benchmark and the tests

	"cmd":   anything,
	"bench": anything,
	"tests": anything,
}

// pkg is what go list tells of a package.
type pkg struct {
	ImportPath string
	Deps       []string
}

// roomOf is the room that an import path of the module lies in, or "".
func roomOf(importPath string) string {
	short := strings.TrimPrefix(importPath, module+"/")
	for room := range rooms {
		if short == room || strings.HasPrefix(short, room+"/") {
			return room
		}
	}
	return ""
}

// intrusions returns what a package imports and may not.
func intrusions(p pkg) (found []string) {
	room := roomOf(p.ImportPath)
	if room == "" {
		return []string{p.ImportPath + ": belongs to no room of the table in rooms_test.go"}
	}
	for _, dep := range p.Deps {
		if !strings.HasPrefix(dep, module+"/") {
			continue
		}
		other := roomOf(dep)
		if other == room || slices.Contains(rooms[room], other) || slices.Equal(rooms[room], anything) && other != "" {
			continue
		}
		found = append(found, fmt.Sprintf("%s: depends on %s", p.ImportPath, dep))
	}
	return found
}

func TestImportsRunOneWay(t *testing.T) {
	for _, system := range []string{"linux", "windows"} {
		packages, err := list(system)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packages {
			for _, finding := range intrusions(p) {
				t.Errorf("%s (on %s)", finding, system)
			}
		}
	}
}

// list asks go list for the module's packages as they are built on a system.
func list(system string) ([]pkg, error) {
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Deps", "./...")
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "GOOS="+system, "CGO_ENABLED=0")
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var packages []pkg
	decoder := json.NewDecoder(out)
	for {
		var p pkg
		err := decoder.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("read go list: %w", err), cmd.Wait())
		}
		packages = append(packages, p)
	}
	return packages, cmd.Wait()
}
