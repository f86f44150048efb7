// SPDX-License-Identifier: Apache-2.0

package control

import (
	"errors"
	"fmt"
	"testing"
)

func TestRefuse(t *testing.T) {
	odd := &Refusal{Message: "a; hint: b", Hint: "c"}
	for _, tt := range []struct {
		err  error
		want Refusal
	}{
		{errors.New("open: no"), Refusal{"open: no", ""}},
		{errors.New("open: no; hint: buy one"), Refusal{"open: no", "buy one"}},
		{&Refusal{Message: "no"}, Refusal{"no", ""}},
		{odd, *odd},
		{fmt.Errorf("try: %w", &Refusal{"no", "buy one"}), Refusal{"try: no", "buy one"}},
		{fmt.Errorf("try: %w", odd), Refusal{"try: a; hint: b", "c"}},
		{fmt.Errorf("try: %w twice", &Refusal{"no", "buy one"}), Refusal{"try: no", "buy one twice"}},
	} {
		if got := Refuse(tt.err); *got != tt.want {
			t.Errorf("%v: got %+v, want %+v", tt.err, *got, tt.want)
		}
	}
	if Refuse(nil) != nil {
		t.Error("nil is refused")
	}
}
