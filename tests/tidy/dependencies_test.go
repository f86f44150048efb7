// SPDX-License-Identifier: Apache-2.0

package tidy

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Each direct dependency has earned its line in the architecture's page.
func TestDependenciesAreExplained(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(root, "docs", "ARCHITECTURE.md"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("docs/ARCHITECTURE.md is not there")
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "mod", "edit", "-json")
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	missing, err := unexplained(out, string(page))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range missing {
		t.Errorf("docs/ARCHITECTURE.md has no line for %s, which go.mod requires", path)
	}
}

// unexplained takes go.mod as `go mod edit -json` prints it.
func unexplained(gomod []byte, page string) (missing []string, err error) {
	var parsed struct {
		Require []struct {
			Path     string
			Indirect bool
		}
	}
	if err := json.Unmarshal(gomod, &parsed); err != nil {
		return nil, err
	}
	for _, required := range parsed.Require {
		if !required.Indirect && !strings.Contains(page, strings.TrimPrefix(required.Path, "github.com/")) {
			missing = append(missing, required.Path)
		}
	}
	return missing, nil
}
