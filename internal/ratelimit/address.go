package ratelimit

import (
	"net/netip"
)

// DefaultIPv6Prefix is the length of the smallest prefix that a provider gives a site (RFC 6177). A client that has one
// address of it has all of them.
const DefaultIPv6Prefix = 64

// nat64 is the prefix that translators put before IPv4 addresses (RFC 6052, section 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Address returns the key that a client with the address is counted by:
//
//   - An IPv6 address counts as its prefix of that many bits.
//   - An IPv4 address counts as itself, also inside an IPv6 address.
//   - A link-local address counts as itself, because all hosts of a link have the same prefix. Its zone, which the server
//     assigns, distinguishes links.
//   - Anything else, such as the name of a Unix socket, is returned unchanged.
func Address(addr string, bits int) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		port, err := netip.ParseAddrPort(addr)
		if err != nil {
			return addr
		}
		ip = port.Addr()
	}
	if nat64.Contains(ip) {
		all := ip.As16()
		ip, _ = netip.AddrFromSlice(all[12:])
	}
	ip = ip.Unmap()
	if ip.Is4() || ip.IsLinkLocalUnicast() {
		return ip.String()
	}
	prefix, err := ip.WithZone("").Prefix(bits)
	if err != nil {
		return addr
	}
	return prefix.String()
}
