// SPDX-License-Identifier: Apache-2.0

package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// unit is a suffix and what it stands for.
type unit struct {
	suffix string
	factor int64
}

var sizeUnits = []unit{{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40}}

var durationUnits = []unit{
	{"ms", int64(time.Millisecond)}, {"s", int64(time.Second)}, {"m", int64(time.Minute)}, {"h", int64(time.Hour)},
}

// ParseSize reads a whole number with KiB, MiB, GiB or TiB as bytes.
func ParseSize(text string) (int64, error) {
	return parseUnits(text, sizeUnits, "KiB, MiB, GiB or TiB", "10GiB")
}

// ParseDuration reads a whole number with ms, s, m or h.
func ParseDuration(text string) (time.Duration, error) {
	n, err := parseUnits(text, durationUnits, "ms, s, m or h", "250ms")
	return time.Duration(n), err
}

func parseUnits(text string, units []unit, known, example string) (int64, error) {
	digits := strings.TrimLeft(text, "0123456789")
	number, suffix := text[:len(text)-len(digits)], digits
	for _, u := range units {
		if suffix != u.suffix || number == "" {
			continue
		}
		n, err := strconv.ParseInt(number, 10, 64)
		if err != nil || n > math.MaxInt64/u.factor {
			return 0, fmt.Errorf("%q is too large", text)
		}
		return n * u.factor, nil
	}
	switch {
	case number == "":
		return 0, fmt.Errorf("%q is no whole number with a unit; expected e.g. %s", text, example)
	case suffix == "":
		return 0, fmt.Errorf("%q has no unit; expected %s, e.g. %s", text, known, example)
	default:
		return 0, fmt.Errorf("unknown unit %q in %q; expected %s, e.g. %s", suffix, text, known, example)
	}
}

// FormatSize writes bytes so that ParseSize reads them, in the largest unit
// that leaves no fraction; what is no multiple of 1 KiB is written as bytes,
// with B.
func FormatSize(bytes int64) string {
	for i := len(sizeUnits) - 1; i >= 0; i-- {
		if u := sizeUnits[i]; bytes >= u.factor && bytes%u.factor == 0 {
			return strconv.FormatInt(bytes/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(bytes, 10) + "B"
}

// FormatDuration writes whole milliseconds so that ParseDuration reads them;
// anything finer is written as time.Duration does.
func FormatDuration(d time.Duration) string {
	for i := len(durationUnits) - 1; i >= 0; i-- {
		if u := durationUnits[i]; int64(d) >= u.factor && int64(d)%u.factor == 0 {
			return strconv.FormatInt(int64(d)/u.factor, 10) + u.suffix
		}
	}
	return d.String()
}
