package ratelimit

import (
	"net/netip"
	"testing"
)

func TestAddress(t *testing.T) {
	for _, c := range []struct {
		addr string
		bits int
		want string
	}{
		{"192.0.2.1", 64, "192.0.2.1"},
		{"192.0.2.1:443", 64, "192.0.2.1"},
		{"2001:db8:0:1::1", 64, "2001:db8:0:1::/64"},
		{"2001:db8:0:1:ffff:ffff:ffff:ffff", 64, "2001:db8:0:1::/64"},
		{"[2001:db8:0:1::1]:443", 64, "2001:db8:0:1::/64"},
		{"2001:DB8:0:1::1", 64, "2001:db8:0:1::/64"},
		{"2001:db8:0:2::1", 64, "2001:db8:0:2::/64"},
		{"2001:db8:0:2::1", 48, "2001:db8::/48"},
		{"2001:db8:0:2::1", 128, "2001:db8:0:2::1/128"},
		{"2001:db8:0:2::1%eth0", 64, "2001:db8:0:2::/64"},
		{"::ffff:192.0.2.1", 64, "192.0.2.1"}, // IPv4-mapped: else all of IPv4 would be one client
		{"::ffff:c000:201", 64, "192.0.2.1"},
		{"::ffff:192.0.2.1%1", 64, "192.0.2.1"},
		{"64:ff9b::192.0.2.1", 64, "192.0.2.1"},
		{"fe80::1%eth0", 64, "fe80::1%eth0"}, // all hosts of a link have this prefix
		{"fe80::2%eth0", 64, "fe80::2%eth0"},
		{"fe80::1%eth1", 64, "fe80::1%eth1"},
		{"::1", 64, "::/64"},
		{"@", 64, "@"},
		{"", 64, ""},
	} {
		if got := Address(c.addr, c.bits); got != c.want {
			t.Errorf("Address(%q, %d) = %q, want %q", c.addr, c.bits, got, c.want)
		}
	}
}

func FuzzAddress(f *testing.F) {
	f.Add("2001:db8::1", "2001:db8::2", 64)
	f.Add("::ffff:192.0.2.1", "192.0.2.1", 64)
	f.Add("fe80::1%eth0", "[fe80::1%eth0]:80", 48)
	f.Fuzz(func(t *testing.T, a, b string, bits int) {
		bits = 1 + (bits&0x7fffffff)%128
		x, errX := netip.ParseAddr(a)
		y, errY := netip.ParseAddr(b)
		one, other := Address(a, bits), Address(b, bits)
		if errX != nil || errY != nil || x.Is4() || y.Is4() || x.Is4In6() || y.Is4In6() || nat64.Contains(x) || nat64.Contains(y) ||
			x.IsLinkLocalUnicast() || y.IsLinkLocalUnicast() {
			return
		}
		p, _ := x.WithZone("").Prefix(bits)
		if want := p.Contains(y.WithZone("")); want != (one == other) {
			t.Errorf("%q and %q with /%d: %q and %q", a, b, bits, one, other)
		}
	})
}
