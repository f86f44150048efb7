// SPDX-License-Identifier: Apache-2.0

// Package trust holds the keys by which nodes, witness and administrators know
// each other, and makes the TLS configurations that use them.
//
// One directory, made once by Init and copied to every machine, has for every
// name a private key (NAME.key) and a self-signed certificate (NAME.crt). A
// machine needs its own private key and everybody's certificate.
//
// The pinned public key decides, and nothing else: there is no authority, no
// host name is compared and no certificate date is consulted, so that no expiry
// and no wrong clock can stop a cluster. All connections are mutual TLS 1.3.
//
// A nil *Keys is a lab without keys (`insecure = true`): its methods hand
// connections through as they are.
package trust
