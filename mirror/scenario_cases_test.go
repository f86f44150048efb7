// SPDX-License-Identifier: Apache-2.0

package mirror

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const cases = 43

// withoutScenario are the cases that no engine can show by itself, and why.
var withoutScenario = map[int]string{
	33: "needs the kernel's device",
	34: "needs the kernel's device",
	36: "memory is the process's, not the engine's",
}

// TestEveryCase: each of the subtle cases has its scenario, which says in its first
// line which case it is and which rule it proves, and the page names all of them.
func TestEveryCase(t *testing.T) {
	page, err := os.ReadFile("../docs/FAILURES.md")
	if err != nil {
		t.Fatal(err)
	}
	head := regexp.MustCompile(`^# Case (\d+)[a-z]?(, rules? [0-9, and]+)?: .`)
	for number := 1; number <= cases; number++ {
		row := regexp.MustCompile(fmt.Sprintf(`(?m)^\| %d \| .*\|$`, number)).FindString(string(page))
		var files []string
		for _, place := range [...]string{"testdata/scenarios", "../failover/testdata/machine"} {
			found, _ := filepath.Glob(fmt.Sprintf("%s/%02d-*.txt", place, number))
			files = append(files, found...)
		}
		why, excepted := withoutScenario[number]
		switch {
		case len(files) == 0 && !excepted:
			t.Errorf("case %d has no scenario", number)
		case len(files) > 0 && excepted:
			t.Errorf("case %d is said to have no scenario, because it %s", number, why)
		case excepted && !strings.Contains(row, why):
			t.Errorf("docs/FAILURES.md does not say of case %d: %s", number, why)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if m := head.FindStringSubmatch(string(text)); m == nil || m[1] != fmt.Sprint(number) {
				t.Errorf("%s does not begin with its case and rule", file)
			}
			if name := strings.TrimSuffix(filepath.Base(file), ".txt"); !strings.Contains(row, name) {
				t.Errorf("docs/FAILURES.md does not name %s in the row of case %d", name, number)
			}
		}
	}
}
