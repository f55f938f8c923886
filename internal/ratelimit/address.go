package ratelimit

import (
	"net/netip"
)

// DefaultIPv6Prefix is the length of the prefix that a provider gives a site at least (RFC 6177): whoever has one
// address of it has all of them.
const DefaultIPv6Prefix = 64

// nat64 is the prefix behind which translators put IPv4 addresses (RFC 6052, section 2.1).
var nat64 = netip.MustParsePrefix("64:ff9b::/96")

// Address returns what a client with the address counts as. An IPv6 address counts as its prefix of so many bits; an
// IPv4 address, also one inside an IPv6 address, as itself. A link-local address counts as itself, for all hosts of a
// link have one prefix; its zone, which the server gives it, tells links apart. What is no address, such as the name of
// a Unix socket, is returned as it is.
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
