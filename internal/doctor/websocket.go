package doctor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
)

// socket looks at a WebSocket, from its handshake to a ping that comes back.
var socket = Check{
	Name: "websocket", About: "the handshake, the hello of the server, and a ping", needs: aRoute,
	run: func(ctx context.Context, x *exam) []Finding {
		c, resp, err := x.open(ctx)
		if err != nil {
			return []Finding{x.noSocket(ctx, resp, err)}
		}
		defer c.close()
		x.deflated = strings.Contains(c.resp.Header.Get("Sec-WebSocket-Extensions"), "permessage-deflate")
		took, err := c.ping(x.Wait)
		if err != nil {
			return []Finding{problem("the WebSocket opens, but a ping gets no pong within %s: %v", x.Wait, err).fixedBy(
				"look at the proxies in front: one of them does not forward what clients send")}
		}
		x.has[aSocket] = true
		channels := "on no channel"
		if len(c.hello.Channels) > 0 {
			channels = "on the channels " + visible(strings.Join(c.hello.Channels, " "))
		}
		return []Finding{ok("it opens, %s, and a ping takes %s", channels, took.Round(10*time.Microsecond))}
	},
}

// entry is one of those that the server sends in a frame of broadcast.v1 (docs/protocol.md). Others than these are ignored.
type entry struct {
	Hello *hello          `json:"hello"`
	Gap   json.RawMessage `json:"gap"`
	Ack   *struct {
		ID string `json:"id"`
	} `json:"ack"`
	Error *struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	} `json:"error"`
	Subscribed json.RawMessage `json:"subscribed"`
	ID         string          `json:"id"`
	Channel    string          `json:"channel"`
	Data       json.RawMessage `json:"data"`
}

type hello struct {
	Connection string   `json:"connection"`
	Channels   []string `json:"channels"`
	ID         string   `json:"id"`
	Resumed    bool     `json:"resumed"`
	Heartbeat  float64  `json:"heartbeat"`
}

// webSocket is a WebSocket that speaks broadcast.v1. A goroutine reads it, so that pings are answered.
type webSocket struct {
	conn    *websocket.Conn
	resp    *http.Response
	hello   hello
	entries chan entry    // what comes after the hello; what nobody takes is dropped
	ended   chan struct{} // closed at the end of the connection
	err     error         // why, after that
	pongs   chan struct{}
	last    atomic.Int64 // when something came last, in Unix nanoseconds
	pings   atomic.Int64 // of the server, heartbeats among them
}

// errNoHello is the error of a WebSocket that opens and does not begin as broadcast.v1 does.
var errNoHello = errors.New("no hello")

// open opens a WebSocket and waits for the hello. If the handshake was rejected, it returns the response.
func (x *exam) open(ctx context.Context, query ...string) (*webSocket, response, error) {
	dialer := websocket.Dialer{
		NetDialContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return x.dial(ctx) },
		TLSClientConfig:   x.tls("http/1.1"),
		Subprotocols:      []string{v1.Name},
		EnableCompression: true, // as browsers do
		HandshakeTimeout:  x.Wait,
	}
	// With this in the query, a handshake that has lost its Upgrade on the way is a probe, and gets a 204: nothing else gets one.
	u := x.target(append(query, protocol.QueryParameter, v1.Name)...)
	u.Scheme = strings.Replace(u.Scheme, "http", "ws", 1)
	var conn *websocket.Conn
	var resp *http.Response
	err := twice(func() (err error) {
		conn, resp, err = dialer.DialContext(ctx, u.String(), x.header(x.page))
		return err
	})
	if resp == nil {
		return nil, response{}, err
	}
	if err != nil {
		text, _ := io.ReadAll(resp.Body)
		return nil, response{resp, string(text)}, err
	}
	if conn.Subprotocol() != v1.Name { // it will not say hello
		conn.Close()
		return nil, response{resp, ""}, errNoHello
	}
	c := &webSocket{conn: conn, resp: resp, entries: make(chan entry, 64), ended: make(chan struct{}), pongs: make(chan struct{}, 1)}
	if err := c.greet(x.Wait); err != nil {
		conn.Close()
		return nil, response{resp, ""}, err
	}
	x.epochs[epochOf(c.hello.ID)] = true
	x.heartbeat = time.Duration(c.hello.Heartbeat * float64(time.Second))
	go c.read()
	return c, response{resp, ""}, nil
}

// epochOf returns the epoch of a position: what is before the last dash.
func epochOf(id string) string {
	if i := strings.LastIndexByte(id, '-'); i >= 0 {
		return id[:i]
	}
	return id
}

// greet reads the hello.
func (c *webSocket) greet(wait time.Duration) error {
	c.conn.SetReadDeadline(time.Now().Add(wait))
	frame, err := c.frame()
	if err != nil {
		return fmt.Errorf("%w: %w", errNoHello, err)
	}
	if len(frame) == 0 || frame[0].Hello == nil {
		return errNoHello
	}
	c.hello = *frame[0].Hello
	c.conn.SetReadDeadline(time.Time{})
	c.conn.SetPongHandler(func(string) error {
		c.touch()
		select {
		case c.pongs <- struct{}{}:
		default:
		}
		return nil
	})
	pong := c.conn.PingHandler()
	c.conn.SetPingHandler(func(data string) error {
		c.touch()
		c.pings.Add(1)
		return pong(data)
	})
	c.touch()
	return nil
}

func (c *webSocket) touch() { c.last.Store(time.Now().UnixNano()) }

// frame reads one frame.
func (c *webSocket) frame() (entries []entry, err error) {
	_, data, err := c.conn.ReadMessage()
	if err != nil {
		return nil, err
	}
	c.touch()
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("a frame is not one of broadcast.v1: %w", err)
	}
	return entries, nil
}

// read reads until the end.
func (c *webSocket) read() {
	defer close(c.ended)
	for {
		frame, err := c.frame()
		if err != nil {
			c.err = err
			return
		}
		if len(frame) == 0 { // a heartbeat
			c.pings.Add(1)
		}
		for _, e := range frame {
			select {
			case c.entries <- e:
			default: // the route's own messages, if there are many
			}
		}
	}
}

// ping sends a ping and waits for the pong.
func (c *webSocket) ping(wait time.Duration) (time.Duration, error) {
	began := time.Now()
	if err := c.conn.WriteControl(websocket.PingMessage, []byte("doctor"), began.Add(wait)); err != nil {
		return 0, err
	}
	select {
	case <-c.pongs:
		return time.Since(began), nil
	case <-c.ended:
		return 0, c.err
	case <-time.After(wait):
		return 0, context.DeadlineExceeded
	}
}

// await returns the first entry that is what is waited for.
func (c *webSocket) await(wait time.Duration, is func(entry) bool) (entry, error) {
	timeout := time.After(wait)
	for {
		select {
		case e := <-c.entries:
			if is(e) {
				return e, nil
			}
		case <-c.ended:
			return entry{}, c.err
		case <-timeout:
			return entry{}, context.DeadlineExceeded
		}
	}
}

// close closes the WebSocket as a page does.
func (c *webSocket) close() {
	c.conn.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second))
	c.conn.Close()
}

// noSocket says why there is no WebSocket, where the route would let the client in.
func (x *exam) noSocket(ctx context.Context, r response, err error) Finding {
	upgrade := []Lines{
		nginx("location "+x.path(), "proxy_http_version 1.1;\nproxy_set_header Upgrade $http_upgrade;\nproxy_set_header Connection \"upgrade\";\nproxy_set_header Host $http_host;"),
		caddyfile("the proxy's site, where reverse_proxy has no header_up for Upgrade or Connection", "reverse_proxy <address of this Caddy>"),
	}
	switch {
	case r.Response == nil && errors.Is(err, context.DeadlineExceeded):
		return problem("the handshake gets no response within %s", x.Wait).fixedBy("let the proxies in front forward WebSockets", upgrade...)
	case r.Response == nil && x.version == 2 && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)):
		return noHTTP1()
	case r.Response == nil:
		return problem("the handshake gets no response: %v", dialError(err)).fixedBy("let the proxies in front forward WebSockets", upgrade...)
	case r.StatusCode == http.StatusSwitchingProtocols && errors.Is(err, errNoHello):
		if r.Header.Get("Sec-WebSocket-Protocol") != v1.Name {
			return problem("a WebSocket opens, but not of the subprotocol %s: a proxy in front removes the header Sec-WebSocket-Protocol, or another server responds", v1.Name).fixedBy(
				"have the proxy pass the header on", nginx("location "+x.path(), "proxy_set_header Sec-WebSocket-Protocol $http_sec_websocket_protocol;"))
		}
		return problem("a WebSocket opens, and then nothing comes within %s: a proxy in front holds it back", x.Wait).fixedBy("let the proxy forward WebSockets", upgrade...)
	case r.StatusCode == http.StatusSwitchingProtocols:
		return problem("the response to the handshake is not valid: a proxy in front changes its headers (%v)", err).fixedBy("let the proxy forward WebSockets", upgrade...)
	case r.StatusCode == http.StatusNoContent || r.StatusCode == http.StatusBadRequest && strings.Contains(r.text, "needs HTTP/1.1"):
		return problem("a proxy in front removes the headers Upgrade and Connection, so the handshake arrives as an ordinary request").fixedBy(
			"have the proxy pass them on", upgrade...)
	case r.StatusCode == http.StatusNotFound || r.StatusCode < 300:
		// It is no WebSocket request of this route, although the route is there.
		return problem("the route does not accept WebSockets (the handshake got %s)", visible(r.Status)).fixedBy(
			"remove the option transports of the route, or add websocket to it", caddyfile("broadcast "+x.path(), "transports websocket sse post"))
	}
	return x.rejection(ctx, r)
}
