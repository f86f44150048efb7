// SPDX-License-Identifier: Apache-2.0

// Package tidy is the project's own style, as tests: what a reviewer would
// otherwise have to say again and again.
package tidy
