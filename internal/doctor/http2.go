package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/gobwas/ws/wsutil"
	"golang.org/x/net/http2"

	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// http2Check looks at WebSockets inside HTTP/2 (RFC 8441). A browser uses them where the server offers them, and has no other
// way then.
var http2Check = Check{
	Name: "http/2", About: "whether HTTP/2 and WebSockets inside it work, where they are offered", needs: aSocket,
	run: func(ctx context.Context, x *exam) []Finding {
		if !x.secure {
			return nil // browsers use HTTP/2 over TLS only
		}
		ctx, cancel := context.WithTimeout(ctx, x.Wait)
		defer cancel()
		c, err := x.dial(ctx)
		if err != nil {
			return []Finding{problem("another connection does not open: %v", dialError(err))}
		}
		defer c.Close()
		conn := tls.Client(c, x.tls("h2", "http/1.1"))
		if err := conn.HandshakeContext(ctx); err != nil {
			return []Finding{problem("the TLS handshake that offers HTTP/2 fails: %v", err)}
		}
		if conn.ConnectionState().NegotiatedProtocol != "h2" {
			return []Finding{advice("HTTP/2 is not offered, and on HTTP/1.1 a browser opens at most six event streams").fixedBy(
				"let the server in front speak HTTP/2", nginx("server", "http2 on;"), nginx("server, before version 1.25.1", "listen "+x.port+" ssl http2;"), caddyfile("the global options", "servers {\n\tprotocols h1 h2 h3\n}"))}
		}
		// net/http's own client rejects the header :protocol.
		//lint:ignore SA1019 see above
		client, err := new(http2.Transport).NewClientConn(conn)
		if err != nil {
			return []Finding{problem("HTTP/2 is offered, but does not work: %v", err)}
		}
		return []Finding{x.tunnelFinding(ctx, client, 2)}
	},
}

// tunnelFinding opens a WebSocket inside HTTP/2 or HTTP/3.
func (x *exam) tunnelFinding(ctx context.Context, rt http.RoundTripper, version int) Finding {
	err := x.tunnel(ctx, rt, version)
	switch {
	case err == nil:
		return ok("WebSockets inside HTTP/%d work", version)
	// The libraries' errors are not exported, and quic-go's text is the same.
	case strings.Contains(strings.ToLower(err.Error()), "extended connect"):
		return ok("HTTP/%d works, and offers no WebSockets inside it, so browsers open an HTTP/1.1 connection for each; GODEBUG=http2xconnect=1 in Caddy's environment offers them on HTTP/2", version)
	}
	without := Lines{"environment", "Caddy's process", "GODEBUG=http2xconnect=0"}
	if version == 3 { // there they cannot be turned off alone
		without = caddyfile("the global options", "servers {\n\tprotocols h1 h2\n}")
	}
	return problem("WebSockets inside HTTP/%d are offered, but do not work: %v", version, err).fixedBy(
		"let requests with the method CONNECT through to the route, or do not offer this: browsers do not try another way", without)
}

// tunnel opens a WebSocket with an extended CONNECT (RFC 8441, RFC 9220), and waits for the hello.
func (x *exam) tunnel(ctx context.Context, rt http.RoundTripper, version int) error {
	ctx, cancel := context.WithTimeout(ctx, x.Wait)
	defer cancel()
	body, up := io.Pipe()
	defer up.Close()
	r, err := http.NewRequestWithContext(ctx, http.MethodConnect, x.target().String(), body)
	if err != nil {
		return err
	}
	r.ContentLength = -1 // unknown, so that the body is a stream in both directions
	r.Header = x.header(x.page)
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Protocol", v1.Name)
	if version == 3 {
		r.Proto = "websocket"
	} else {
		r.Header.Set(":protocol", "websocket")
	}
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the handshake got the response %s", visible(resp.Status))
	}
	late := time.AfterFunc(x.Wait, func() { resp.Body.Close() })
	defer late.Stop()
	text, _, err := wsutil.ReadServerData(struct {
		io.Reader
		io.Writer
	}{resp.Body, up})
	if err != nil {
		return fmt.Errorf("no hello: %w", err)
	}
	if !strings.HasPrefix(string(text), `[{"hello":`) {
		return errors.New("what comes first is not the hello")
	}
	return nil
}
