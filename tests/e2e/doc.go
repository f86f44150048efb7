// SPDX-License-Identifier: Apache-2.0

// Package e2e tests the program from outside: a pair of processes under real NBD
// clients, with a real file system on it, and with everything that users and
// disks do wrong. Programs that are not installed leave their test out in one
// line; so does mounting for ordinary users.
package e2e
