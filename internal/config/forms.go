// SPDX-License-Identifier: Apache-2.0

package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

// CheckName says whether text may name a cluster, node, service or volume. Such
// names end up in file names, host names and URIs, so they are plain.
func CheckName(text string) error {
	if !namePattern.MatchString(text) {
		return fmt.Errorf("%q is no name; expected 1 to 63 of a-z, 0-9 and -, with no - at either end", text)
	}
	return nil
}

// VirtualIP is an address that clients use, wherever the service is.
type VirtualIP struct {
	Prefix    netip.Prefix // the address itself, with the length of its subnet
	Interface string       // empty: the one that has the subnet
}

// String writes ADDRESS/BITS or ADDRESS/BITS@INTERFACE.
func (v VirtualIP) String() string {
	if v.Interface == "" {
		return v.Prefix.String()
	}
	return v.Prefix.String() + "@" + v.Interface
}

// ParseVirtualIP reads what String writes.
func ParseVirtualIP(text string) (VirtualIP, error) {
	address, device, named := strings.Cut(text, "@")
	prefix, err := netip.ParsePrefix(address)
	if err != nil {
		return VirtualIP{}, fmt.Errorf("%q is no address; expected ADDRESS/BITS, e.g. 10.0.0.100/24 or 10.0.0.100/24@eth1", text)
	}
	// What the kernel takes as an interface name: at most 15 bytes.
	if named && (device == "" || len(device) > 15 || strings.ContainsAny(device, "/: \t")) {
		return VirtualIP{}, fmt.Errorf("%q is no interface; expected e.g. %s@eth1", device, address)
	}
	if ip := prefix.Addr(); ip.Is4In6() || ip.IsUnspecified() || ip.IsMulticast() {
		return VirtualIP{}, fmt.Errorf("%s cannot be an address of this kind; expected one host's, e.g. 10.0.0.100/24", ip)
	}
	return VirtualIP{Prefix: prefix, Interface: device}, nil
}

// parseAddress reads IP:PORT. A node is never given by a DNS name, so that no
// failover waits for a name server.
func parseAddress(text string) (netip.AddrPort, error) {
	address, err := netip.ParseAddrPort(text)
	if err != nil || address.Port() == 0 {
		return netip.AddrPort{}, fmt.Errorf("%q is no address; expected IP:PORT, e.g. 10.0.0.1:7800 or [fd00::1]:7800", text)
	}
	return netip.AddrPortFrom(address.Addr().Unmap(), address.Port()), nil
}

// checkHostPort says whether text is HOST:PORT, the host an IP or a DNS name.
func checkHostPort(text string) error {
	host, port, err := net.SplitHostPort(text)
	number, perr := strconv.ParseUint(port, 10, 16)
	if err != nil || perr != nil || number == 0 || host == "" || strings.ContainsAny(host, " /@") {
		return fmt.Errorf("%q is no address; expected HOST:PORT, e.g. 10.0.0.3:7801", text)
	}
	return nil
}

// maxSocketPath is what a Unix socket's name may have on Linux, in bytes.
const maxSocketPath = 107

// Export is where NBD clients reach a volume.
type Export struct {
	Network string // "unix" or "tcp"
	Address string // a path, or HOST:PORT
}

// ParseExport reads unix:PATH or tcp:HOST:PORT.
func ParseExport(text string) (Export, error) {
	network, address, _ := strings.Cut(text, ":")
	e := Export{Network: network, Address: address}
	switch network {
	case "unix":
		if err := checkPath(address); err != nil {
			return Export{}, err
		}
		if len(address) > maxSocketPath {
			return Export{}, fmt.Errorf("%s is %d bytes long; a socket's path may have %d", address, len(address), maxSocketPath)
		}
	case "tcp":
		if err := checkHostPort(address); err != nil {
			return Export{}, err
		}
	default:
		return Export{}, fmt.Errorf("%q is no export; expected unix:PATH or tcp:HOST:PORT, e.g. tcp:127.0.0.1:10809", text)
	}
	return e, nil
}

// String writes what ParseExport reads.
func (e Export) String() string { return e.Network + ":" + e.Address }

// Local says whether only this machine can connect. An export that is not local
// must be encrypted.
func (e Export) Local() bool {
	if e.Network == "unix" {
		return true
	}
	host, _, _ := net.SplitHostPort(e.Address)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.Unmap().IsLoopback()
}

// URI is the address of a volume at this export, as NBD clients take it.
func (e Export) URI(volume string) string {
	switch {
	case e.Network == "unix":
		return "nbd+unix:///" + volume + "?socket=" + plainer.Replace(url.QueryEscape(e.Address))
	case e.Local():
		return "nbd://" + e.Address + "/" + volume
	default:
		return "nbds://" + e.Address + "/" + volume
	}
}

// plainer undoes two escapes: clients take a plain slash, which people read more
// easily, and not all take + for a space.
var plainer = strings.NewReplacer("%2F", "/", "+", "%20")

// checkPath says whether text is an absolute path, of either system: the same
// file may be checked on another machine than the one that it is for.
func checkPath(text string) error {
	switch {
	case text == "":
		return errors.New("is empty; expected an absolute path")
	case strings.ContainsAny(text, "{}"):
		return fmt.Errorf("%q has braces; {node} is the only thing that expands", text)
	case strings.ContainsFunc(text, func(r rune) bool { return r < ' ' }):
		return fmt.Errorf("%q has control characters; expected an absolute path", text)
	case !path.IsAbs(text) && !filepath.IsAbs(text):
		return fmt.Errorf("%q is relative; expected an absolute path", text)
	}
	return nil
}

// stableDisk says whether a path means the same disk after a reboot: a file, or
// a device under a name made from what the device is.
func stableDisk(text string) bool {
	clean := path.Clean(text)
	return !strings.HasPrefix(clean, "/dev/") || strings.HasPrefix(clean, "/dev/disk/by-")
}

var nbdPattern = regexp.MustCompile(`^/dev/nbd(0|[1-9][0-9]{0,5})$`)

func checkDevice(text string) error {
	if !nbdPattern.MatchString(text) {
		return fmt.Errorf("%q is no NBD device; expected /dev/nbd0, /dev/nbd1, …", text)
	}
	return nil
}
