// SPDX-License-Identifier: Apache-2.0

package harness

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// BootSystemd is a script for the first process of new PID and mount namespaces. It boots
// a systemd that knows two units, twinbd.service, which is the file that it is given, and
// one that is nothing. No unit of the machine's, nor what makes some, runs: they would set
// the machine up anew. Of /run it has only twinbd's part.
const BootSystemd = `
mount --make-rprivate /
mount -t proc proc /proc
if [ -d /run/twinbd ]; then exec 9</run/twinbd; fi
mount -t tmpfs tmpfs /run
if [ -d /proc/self/fd/9/ ]; then mkdir /run/twinbd; mount --no-canonicalize --bind /proc/self/fd/9 /run/twinbd; fi
cp -a /etc /run/etc
mount --bind /run/etc /etc
mkdir /run/units /run/none
cp "$1" /run/units/twinbd.service
printf '[Unit]\nDescription=nothing\nDefaultDependencies=no\n' >/run/units/nothing.target
exec env -i PATH="$PATH" container=test SYSTEMD_UNIT_PATH=/run/units \
	SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \
	/lib/systemd/systemd --system --unit=nothing.target --show-status=no --log-target=console --log-level=info
`

// directories are lines of a unit that would make some on the machine.
var directories = regexp.MustCompile(`(?m)^\w+Directory\w*=.*\n`)

// Unit is the project's unit of a node, for a command, and with a log.
func Unit(t testing.TB, command, log string) string {
	t.Helper()
	text, err := os.ReadFile("../../systemd/twinbd.service")
	if err != nil {
		t.Fatal(err)
	}
	return strings.NewReplacer(
		"[Unit]\n", "[Unit]\nDefaultDependencies=no\n",
		"ExecStart=/usr/local/bin/twinbd serve", "ExecStart="+command+"\nStandardError=append:"+log,
	).Replace(directories.ReplaceAllString(string(text), ""))
}
