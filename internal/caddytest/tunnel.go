package caddytest

import (
	"context"
	"crypto/tls"
	"io"
	"net/http"
	"sync"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/quic-go/quic-go/http3"
	"golang.org/x/net/http2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame/frametest"
)

// Tunnel is the client side of a WebSocket over HTTP/2 or HTTP/3. Reading and writing are of the body's two directions. End
// closes both, and may be called twice: by the test and by its end.
type Tunnel struct {
	io.Reader
	io.Writer
	Resp *http.Response
	End  func()
}

// DialTunnel opens a WebSocket with an extended CONNECT (RFC 8441, RFC 9220).
func (s *Server) DialTunnel(rt http.RoundTripper, url string, header ...string) *Tunnel {
	s.T.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(s.T.Context())
	req, err := http.NewRequestWithContext(ctx, "CONNECT", url, r)
	if err != nil {
		s.T.Fatal(err)
	}
	// Unknown, so that the request's body is a stream in both directions.
	req.ContentLength = -1
	if _, h3 := rt.(*http3.Transport); h3 {
		req.Proto = "websocket"
	} else {
		req.Header.Set(":protocol", "websocket")
	}
	req.Header.Set("Sec-WebSocket-Version", "13")
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := rt.RoundTrip(req)
	if err != nil {
		cancel()
		s.T.Fatal(err)
	}
	c := &Tunnel{resp.Body, w, resp, sync.OnceFunc(func() { w.Close(); resp.Body.Close(); cancel() })}
	s.T.Cleanup(c.End)
	return c
}

// CloseOf reads until a close frame, replies to it, and returns its code. It replies because the server keeps the stream open
// until then (RFC 6455, section 5.5.1).
func (s *Server) CloseOf(c *Tunnel) ws.StatusCode {
	s.T.Helper()
	for {
		f, err := frametest.Read(c)
		if err != nil {
			s.T.Fatalf("no close frame: %v", err)
		}
		if f.Header.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(f.Payload)
			wsutil.WriteClientMessage(c, ws.OpClose, f.Payload) // fails if it was the reply to ours and the stream has ended
			return code
		}
	}
}

// HTTP2 returns an HTTP/2 client that supports extended CONNECT. net/http's own client rejects the header :protocol.
func (s *Server) HTTP2() http.RoundTripper {
	//lint:ignore SA1019 see above
	tr := &http2.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	//lint:ignore SA1019 see above
	s.T.Cleanup(tr.CloseIdleConnections)
	return tr
}

// ExpectTunnel reads text messages, which must be these.
func (s *Server) ExpectTunnel(c *Tunnel, texts ...string) {
	s.T.Helper()
	for _, want := range texts {
		got, _, err := wsutil.ReadServerData(c)
		if err != nil || string(got) != want {
			s.T.Fatalf("got %.100q and %v, not %.100q", got, err, want)
		}
	}
}
