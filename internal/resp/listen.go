package resp

import (
	"net/netip"
	"strings"
)

// NeedsPassword reports whether others than this machine's users may reach what listens on an address, given as Caddy's
// NetworkAddress has it. There a server must have a password, as with Redis's protected mode: whoever can connect may publish
// anything.
func NeedsPassword(network, host string) bool {
	switch network {
	case "unix", "unixpacket":
		return false // the file's permissions decide
	case "", "tcp", "tcp4", "tcp6":
	default: // such as fd, an inherited socket, which may be bound to anything
		return true
	}
	// RFC 6761, section 6.3: localhost always is this machine.
	if strings.EqualFold(strings.TrimSuffix(host, "."), "localhost") {
		return false
	}
	ip, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err != nil || !ip.Unmap().IsLoopback()
}
