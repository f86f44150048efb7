// SPDX-License-Identifier: Apache-2.0

// Package application brings what a service is for up and down on one node:
// device, file system, addresses and the user's own commands. It owns four
// things and nothing else: the order of the steps, their time limits, the
// epoch that they belong to, and how commands are run and ended. What a step
// does to a device or an address is given to it as a function.
//
//	Begin ── Term.Up ──► steps up, in order ──► checks, Term.Restart
//	                          │ one fails: it and those before it down, in reverse
//	Down ──► the term ends: no command of it can start, those that run are
//	         killed and waited for ──► all steps down, in reverse
//
// In the order in which one reads them:
//
//	order.go         who may start a command, until when
//	step.go          one step, its limit, its place in the event log
//	application.go   one after the other, and only forward: Begin, Down
//	term.go          a term: Up, Restart
//	command.go       a user's command, and the errors that it can end in
//	runner.go        Runner: environment, Run, Fence, End, Kill; runner_linux.go: the life of a command, child_linux.go: its birth
//	herd_linux.go    all processes of a command, whatever they do: cgroup_linux.go, scan_linux.go
//	output.go        the last 4 KiB of what it printed
//	commands.go      the step of the service's start and stop lists
//	unit.go          entries of the form unit:NAME; unit_linux.go: over D-Bus
//	fsck.go, mount.go, holders_linux.go   the steps of a file system
//	device_linux.go  who uses a block device itself
//	check.go         when a failing check means a restart, and when it means that this node has failed
//	checker.go       the loop around it
//
// The one invariant: when Down runs its first step, nothing of the term before
// it runs, and nothing of it can start.
//
// What is caught when a command is killed. With a cgroup (Config.Cgroup, cgroup
// v2 with cgroup.kill: Linux 5.14): every descendant, whatever it does short of
// moving itself to another cgroup as root. Without: every process of the
// command's session, and every process that still has the environment that
// the command was given. What escapes then is a process that did both,
// setsid(2) and a cleaned environment (sudo -b, env -i setsid). Never caught is
// what another daemon starts at the command's request: systemctl start,
// docker run. For a systemd unit write unit:NAME, which is killed by name.
package application
