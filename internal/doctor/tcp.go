package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
)

// tcp looks at whether each address accepts connections.
var tcp = Check{
	Name: "tcp", About: "whether each address accepts connections", needs: anAddress,
	run: func(ctx context.Context, x *exam) []Finding {
		var open []string
		var failed []error
		ctx, cancel := context.WithTimeout(ctx, x.Wait)
		defer cancel()
		for _, addr := range x.addrs {
			c, err := dialTCP(ctx, addr)
			if err != nil {
				failed = append(failed, err)
				continue
			}
			c.Close()
			open = append(open, addr)
		}
		all := x.addrs
		x.addrs = open
		x.has[aConnection] = len(open) > 0
		switch {
		case len(open) == 0:
			return []Finding{unreachable(ctx, x, all, failed[0])}
		// A name such as localhost has addresses that nobody uses. A browser tries the next one at once.
		case len(failed) > 0 && !isLocal(x.host):
			return []Finding{advice("%s accepts connections, but of %d addresses %d do not: %v", open[0], len(all), len(failed), dialError(failed[0])).
				fixedBy("remove the addresses that do not belong to the server from the name's A and AAAA records, or open the port there")}
		}
		return []Finding{ok("%s accepts connections", strings.Join(open, ", "))}
	},
}

// unreachable says why no address accepts connections.
func unreachable(ctx context.Context, x *exam, addrs []string, err error) Finding {
	at := strings.Join(addrs, ", ")
	if errors.Is(err, syscall.ECONNREFUSED) {
		f := problem("nothing listens at %s: the connection was refused", at)
		site := fmt.Sprintf("%s://%s {\n\tbroadcast %s\n}", x.URL.Scheme, x.URL.Host, x.path())
		return f.fixedBy("start Caddy, and give it a site with this address"+x.listens(ctx), caddyfile("", site))
	}
	return problem("%s does not answer: %v", at, dialError(err)).fixedBy(
		"let port "+x.port+" through the firewalls and the security groups in between, and forward it where the server is behind NAT or in a container",
		Lines{"compose", "services: caddy: ports", fmt.Sprintf("- \"%s:%[1]s\"", x.port)})
}

// listens returns the end of a sentence: the addresses that this Caddy listens on.
func (x *exam) listens(ctx context.Context) string {
	all := x.insideOf(ctx).listeners()
	if len(all) == 0 {
		return ""
	}
	return "; this Caddy listens on " + strings.Join(all, ", ")
}

// dialError returns the part of an error that says what is wrong.
func dialError(err error) error {
	if failed := new(net.OpError); errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
