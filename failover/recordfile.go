// SPDX-License-Identifier: Apache-2.0

package failover

import (
	"errors"
	"fmt"
	"strings"
)

// serviceKey names a service among those of all clusters.
type serviceKey struct{ cluster, service string }

func (k serviceKey) String() string { return "service " + k.service + " of cluster " + k.cluster }

// recordKind is the form of a record's file: cluster and service, each a string
// as in a message, and the record as in a message of version 1.
var recordKind = slotKind{magic: 0x7477_6264_5265_6331, version: 1} // "twbdRec1"

// recordPrefix opens the names of the files: "record.CLUSTER.SERVICE". It also
// keeps a service called "con" from naming a device on Windows.
const recordPrefix = "record."

func (k serviceKey) fileName() string { return recordPrefix + k.cluster + "." + k.service }

// parseFileName is the reverse of fileName, without the prefix.
func parseFileName(rest string) (serviceKey, error) {
	cluster, service, _ := strings.Cut(rest, ".")
	return serviceKey{cluster, service}, errors.Join(CheckName("cluster", cluster), CheckName("service", service))
}

// appendRecordFile and decodeRecordFile are the payload of a record's file,
// which names its service so that a file under a wrong name is found out.
func appendRecordFile(b []byte, key serviceKey, r Record) []byte {
	b = appendName(b, key.cluster)
	b = appendName(b, key.service)
	return r.append(b)
}

func decodeRecordFile(b []byte, key serviceKey) (Record, error) {
	d := decoder{b: b}
	found := serviceKey{d.name(), d.name()}
	r := d.record()
	if err := d.end("record"); err != nil {
		return Record{}, err
	}
	switch {
	case found != key:
		return Record{}, fmt.Errorf("the file %s belongs to %v", key.fileName(), found)
	case r.Empty():
		return Record{}, fmt.Errorf("the file %s holds no record", key.fileName())
	}
	return r, nil
}
