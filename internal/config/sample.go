// SPDX-License-Identifier: Apache-2.0

package config

import _ "embed"

//go:embed sample.toml
var sample string

// Sample returns a configuration with a comment on every key, which Parse takes.
func Sample() string { return sample }
