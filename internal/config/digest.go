// SPDX-License-Identifier: Apache-2.0

package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Values is a configuration as dotted keys and texts, defaults filled in. It is
// what the nodes compare: comments, order and spelling do not matter. A key
// whose value is empty or zero is left out, so that a newer version's new key
// makes no difference until it is used.
type Values map[string]string

// Values returns the configuration's values.
func (c *Config) Values() Values {
	v := Values{}
	v.add("", reflect.ValueOf(c).Elem())
	return v
}

// Digest is equal for configurations of equal values.
func (c *Config) Digest() string { return c.Values().Digest() }

// Digest is equal for equal values.
func (v Values) Digest() string {
	h := sha256.New()
	for _, key := range slices.Sorted(maps.Keys(v)) {
		fmt.Fprintf(h, "%q=%q\n", key, v[key])
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Diff returns the keys whose values differ, sorted.
func Diff(a, b Values) []string {
	var keys []string
	for key, value := range a {
		if other, ok := b[key]; !ok || other != value {
			keys = append(keys, key)
		}
	}
	for key := range b {
		if _, ok := a[key]; !ok {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// add puts in what value holds, under the keys that the file has for it.
func (v Values) add(key string, value reflect.Value) {
	if !value.IsValid() || value.IsZero() {
		return
	}
	if text, ok := value.Interface().(fmt.Stringer); ok {
		v[key] = text.String()
		return
	}
	switch value.Kind() {
	case reflect.Pointer:
		v.add(key, value.Elem())
	case reflect.Struct:
		v.addFields(key, value)
	case reflect.Map:
		for _, name := range value.MapKeys() {
			v.add(join(key, name.String()), value.MapIndex(name))
		}
	case reflect.Slice:
		v.addList(key, value)
	default:
		v[key] = fmt.Sprint(value.Interface())
	}
}

func (v Values) addFields(key string, value reflect.Value) {
	for i := range value.NumField() {
		if name := value.Type().Field(i).Tag.Get("toml"); name != "-" {
			v.add(join(key, name), value.Field(i))
		}
	}
}

// addList puts in tables under their names, and anything else as one text: the
// order of addresses and commands means something.
func (v Values) addList(key string, list reflect.Value) {
	if isNamed(list.Type().Elem()) {
		for i := range list.Len() {
			v.add(join(key, list.Index(i).FieldByName("Name").String()), list.Index(i))
		}
		return
	}
	var texts []string
	for i := range list.Len() {
		texts = append(texts, fmt.Sprintf("%q", fmt.Sprint(list.Index(i).Interface())))
	}
	v[key] = strings.Join(texts, ", ")
}

func isNamed(t reflect.Type) bool {
	if t.Kind() != reflect.Struct {
		return false
	}
	_, named := t.FieldByName("Name")
	return named
}

var _ fmt.Stringer = time.Duration(0) // add relies on it
