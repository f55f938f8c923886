package doctor

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
)

// dns looks at the name's addresses.
var dns = Check{
	Name: "dns", About: "whether the name has addresses", needs: aURL,
	run: func(ctx context.Context, x *exam) []Finding {
		found := lookUp(ctx, x)
		x.has[anAddress] = len(x.addrs) > 0
		return []Finding{found}
	},
}

func lookUp(ctx context.Context, x *exam) Finding {
	if x.Connect != "" {
		x.addrs = []string{x.Connect}
		return ok("it connects to %s, whatever the addresses of %s are", x.Connect, x.host)
	}
	ctx, cancel := context.WithTimeout(ctx, x.Wait)
	defer cancel()
	if ip, err := netip.ParseAddr(x.host); err == nil {
		x.addrs = []string{net.JoinHostPort(ip.String(), x.port)}
		return ok("%s is an IP address", x.host)
	}
	name := x.host
	if strings.HasSuffix(name, ".localhost") {
		name = "localhost" // as in browsers, whatever the resolver says (RFC 6761, section 6.3)
	}
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, name)
	if err != nil {
		return unresolved(x, err)
	}
	var texts []string
	for _, ip := range ips {
		texts = append(texts, ip.String())
		x.addrs = append(x.addrs, net.JoinHostPort(ip.String(), x.port))
	}
	return ok("%s is %s", x.host, strings.Join(texts, ", "))
}

func unresolved(x *exam, err error) Finding {
	connect := shell("caddy broadcast doctor --connect <address of the server>:" + x.port + " " + x.URL.Redacted())
	if failed := new(net.DNSError); errors.As(err, &failed) && failed.IsNotFound {
		return problem("the name %s has no address", x.host).fixedBy(
			"give the name an A or AAAA record with the server's address; to check the server before that, use --connect", connect)
	}
	return problem("the name %s cannot be resolved here: %v", x.host, err).fixedBy(
		"repair this machine's resolver (/etc/resolv.conf); to check the server without it, use --connect", connect)
}
