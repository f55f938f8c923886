package doctor

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// offersH3 finds the port in the header Alt-Svc (RFC 7838). Another host than the site's is left out: nobody uses that.
var offersH3 = regexp.MustCompile(`\bh3=":(\d+)"`)

// http3Check looks at HTTP/3, which a browser tries if a response has announced it. It needs UDP, which firewalls and
// containers often do not let through.
var http3Check = Check{
	Name: "http/3", About: "whether HTTP/3 and WebSockets inside it work, where they are announced", needs: aSocket,
	run: func(ctx context.Context, x *exam) []Finding {
		if !x.secure {
			return nil
		}
		m := offersH3.FindStringSubmatch(x.altSvc)
		if m == nil {
			return []Finding{ok("HTTP/3 is not announced")}
		}
		host, _, err := net.SplitHostPort(x.addrs[0])
		if err != nil {
			return []Finding{problem("invalid address: %v", err)}
		}
		at := net.JoinHostPort(host, m[1])
		transport := &http3.Transport{
			TLSClientConfig: x.tls(http3.NextProtoH3),
			Dial: func(ctx context.Context, _ string, t *tls.Config, q *quic.Config) (*quic.Conn, error) {
				return quic.DialAddrEarly(ctx, at, t, q)
			},
		}
		defer transport.Close()
		if err := x.askOverH3(ctx, transport); err != nil {
			return []Finding{problem("HTTP/3 is announced, but does not work on UDP port %s: %v", m[1], err).fixedBy(
				"let UDP through to Caddy, or do not announce HTTP/3: browsers try it again and again",
				Lines{"compose", "services: caddy: ports", fmt.Sprintf("- \"%s:%[1]s/udp\"", m[1])},
				caddyfile("the global options", "servers {\n\tprotocols h1 h2\n}"))}
		}
		return []Finding{x.tunnelFinding(ctx, transport, 3)}
	},
}

// askOverH3 sends the probe over HTTP/3.
func (x *exam) askOverH3(ctx context.Context, transport *http3.Transport) error {
	ctx, cancel := context.WithTimeout(ctx, x.Wait)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, x.target(protocol.QueryParameter, v1.Name).String(), nil)
	if err != nil {
		return err
	}
	r.Header = x.header(x.page)
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, io.LimitReader(resp.Body, maxText)) // what it says was seen over TCP
	if resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("the route responds with %s", visible(resp.Status))
	}
	return nil
}
