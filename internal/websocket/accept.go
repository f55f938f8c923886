// Package websocket takes WebSocket clients in: the handshake, by gorilla/websocket, and the reading. Writing is the
// hub's, through the connection's socket.
package websocket

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/gorilla/websocket"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

// Route is what the clients of a route have in common.
type Route struct {
	Hub *hub.Hub

	// Raw and V1 are for clients without and with the subprotocol broadcast.v1. V1's formats are wire.V1.
	Raw, V1 Options

	// MaxMessage is the size in bytes of the longest message a client may send, inflated.
	MaxMessage int

	// Rate bounds what each client sends: messages, requests of broadcast.v1, and pings.
	Rate ratelimit.Limit

	// NoEcho keeps a client's own messages from it.
	NoEcho bool

	// Poller reads for the clients, if it can.
	Poller *socket.Poller
}

// Options are for clients that have not, and have, negotiated permessage-deflate. A nil Deflated declines it.
type Options struct{ Plain, Deflated *hub.ConnOptions }

// Client is one of them.
type Client struct {
	hub.Subscriber

	// Publish are the channels that the client may publish on, first the one where what names none is published; none
	// if it may not publish.
	Publish []string

	// First is sent before anything else, but to clients of broadcast.v1, who get its hello.
	First []byte

	// Connected is called when the handshake was answered.
	Connected func()

	// MayJoin says whether a client of broadcast.v1 may join a channel itself. Nil is none.
	MayJoin func(channel string) bool

	// Join are channels that a client of broadcast.v1 asks for with the handshake.
	Join []string
}

// IsUpgrade says whether a request asks for a WebSocket.
func IsUpgrade(r *http.Request) bool { return websocket.IsWebSocketUpgrade(r) || isTunnel(r) }

// isTunnel says whether a request asks for a WebSocket inside HTTP/2 (RFC 8441) or HTTP/3 (RFC 9220).
func isTunnel(r *http.Request) bool {
	return r.Method == http.MethodConnect &&
		(r.ProtoMajor == 2 && r.Header.Get(":protocol") == "websocket" || r.ProtoMajor == 3 && r.Proto == "websocket")
}

// Accept makes the request a WebSocket. On HTTP/1 it takes the connection over and returns while it goes on; on HTTP/2
// and 3 it returns at the WebSocket's end. The client is subscribed before its handshake is answered, so what is
// published after it knows that it is connected reaches it. On an error nothing was answered.
func (route *Route) Accept(w http.ResponseWriter, r *http.Request, client Client) error {
	s := &session{hub: route.Hub, noEcho: route.NoEcho}
	started := false
	defer func() {
		if s.conn != nil && !started { // it failed, or a writer in front has panicked
			s.conn.Done()
		}
	}()
	if len(client.Publish) > 0 {
		s.channel = client.Publish[0]
	}
	s.frames.max = route.MaxMessage
	s.pace = newPace(route.Rate)
	protocol, err := check(r)
	if err != nil {
		return refuse(w, r, http.StatusBadRequest, err)
	}
	offered := route.Raw
	own := client.Channels
	var errs []byte // of broadcast.v1
	if protocol == wire.V1Protocol {
		offered = route.V1
		client.Channels, errs = Grant(own, client.Join, client.MayJoin)
		s.frames.max = 2*s.frames.max + maxEnvelope
	} else {
		client.LastID = "" // it knows no IDs, and could not be told of a gap
	}
	options := offered.Plain
	deflate, window := false, false
	if offered.Deflated != nil {
		deflate, window = offersDeflate(r.Header)
	}
	if deflate {
		options = offered.Deflated
		s.frames.deflates = true
	}
	var status int // of gorilla's refusal
	upgrader := websocket.Upgrader{
		ReadBufferSize:    1, // unused: we read
		WriteBufferPool:   noBuffers{},
		EnableCompression: deflate,
		CheckOrigin:       func(*http.Request) bool { return true }, // done before
		Error:             func(_ http.ResponseWriter, _ *http.Request, code int, _ error) { status = code },
	}
	var header http.Header
	if protocol != "" {
		header = http.Header{"Sec-Websocket-Protocol": {protocol}}
	}

	var welcome hub.Welcome
	up := &upgrade{w: w, tunnel: isTunnel(r), window: window, connect: func() (err error) {
		s.conn, welcome, err = route.Hub.Connect(client.Subscriber, options)
		return err
	}}
	defer up.release()
	_, err = upgrader.Upgrade(up, asUpgrade(r), header)
	switch {
	case up.refused != nil:
		return refuse(w, r, http.StatusServiceUnavailable, up.refused)
	case up.err != nil:
		if up.answered {
			return nil // there is nobody to tell
		}
		return caddyhttp.Error(http.StatusInternalServerError, up.err)
	case err != nil:
		if status == http.StatusMethodNotAllowed {
			status = http.StatusBadRequest
		}
		w.Header().Set("Sec-WebSocket-Version", "13")
		return refuse(w, r, status, err)
	}
	if protocol == wire.V1Protocol {
		s.v1 = &v1{
			format:  options.Format.(wire.V1),
			own:     own,
			publish: client.Publish,
			mayJoin: client.MayJoin,
			max:     route.MaxMessage,
		}
		client.First = s.v1.format.Hello(wire.Hello{
			Connection: s.conn.ID(), Channels: client.Channels, Welcome: welcome, PingInterval: options.PingInterval, Errors: errs,
		})
	}
	if client.Connected != nil {
		client.Connected()
	}
	started = true
	if up.tunnel {
		stream := socket.NewStream(w, r, options.WriteTimeout)
		if !s.conn.Start(stream, client.First) {
			stream.Close()
		}
		stream.Receive(s)
		return nil
	}
	sock := socket.New(up.conn, up.early, s, route.Poller)
	if !s.conn.Start(sock, client.First) {
		sock.Close()
		return nil
	}
	sock.Receive()
	return nil
}

// asUpgrade returns the request as gorilla wants it: that of HTTP/2 and 3 says the same in other words (RFC 8441,
// section 5).
func asUpgrade(r *http.Request) *http.Request {
	if !isTunnel(r) {
		return r
	}
	upgrade := new(http.Request)
	*upgrade = *r
	upgrade.Method = http.MethodGet
	upgrade.Header = r.Header.Clone()
	upgrade.Header.Set("Connection", "Upgrade")
	upgrade.Header.Set("Upgrade", "websocket")
	upgrade.Header.Set("Sec-Websocket-Key", "AAAAAAAAAAAAAAAAAAAAAA==") // there is none, and no answer to it
	return upgrade
}

// refuse answers a handshake with an error. An HTTP/1 connection is not kept, for some clients take it for upgraded.
func refuse(w http.ResponseWriter, r *http.Request, status int, err error) error {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	if status == http.StatusServiceUnavailable {
		publish.RetryLater(w)
	}
	return caddyhttp.Error(status, err)
}

// check refuses what gorilla would let pass, and picks the subprotocol: broadcast.v1, else the first one offered is
// echoed, for a browser fails a handshake that answers none (RFC 6455, section 4.1).
func check(r *http.Request) (protocol string, err error) {
	if !r.ProtoAtLeast(1, 1) {
		return "", errors.New("a WebSocket needs HTTP/1.1 (RFC 6455, section 4.1)")
	}
	if !isTunnel(r) && (r.ContentLength != 0 || len(r.TransferEncoding) > 0) {
		return "", errors.New("the handshake has a body")
	}
	for _, name := range []string{"Sec-Websocket-Key", "Sec-Websocket-Version"} {
		if n := len(r.Header[name]); n > 1 {
			return "", fmt.Errorf("the handshake has %d %s headers (RFC 6455, section 11.3)", n, name)
		}
	}
	for _, line := range r.Header["Sec-Websocket-Protocol"] {
		for name := range strings.SplitSeq(line, ",") {
			name = strings.TrimSpace(name)
			if !isToken(name) {
				return "", fmt.Errorf("the subprotocol %q is not a token (RFC 6455, section 4.1)", name)
			}
			if protocol == "" || name == wire.V1Protocol {
				protocol = strings.Clone(name)
			}
		}
	}
	return protocol, nil
}

func isToken(s string) bool {
	for i := range len(s) {
		if c := s[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`()<>@,;:\"/[]?={}`, c) >= 0 {
			return false
		}
	}
	return s != ""
}

// offersDeflate reports whether an offer of permessage-deflate can be accepted with gorilla's only answer, which is
// without context takeover, and whether the first such offer limits our window, which the answer has to confirm.
func offersDeflate(h http.Header) (ok, window bool) {
	for _, line := range h["Sec-Websocket-Extensions"] {
		for offer := range strings.SplitSeq(line, ",") {
			name, params, _ := strings.Cut(offer, ";")
			if strings.TrimSpace(name) != "permessage-deflate" {
				continue
			}
			if ok, window = acceptable(params); ok {
				return true, window
			}
		}
	}
	return false, false
}

// acceptable reports whether the parameters of an offer of permessage-deflate are right (RFC 7692, section 7.1), and none
// wants a smaller window of us than compress/flate's, and whether one wants just that.
func acceptable(params string) (ok, window bool) {
	var seen []string
	for p := range strings.SplitSeq(params, ";") {
		name, value, has := strings.Cut(p, "=")
		name, value = strings.TrimSpace(name), strings.Trim(strings.TrimSpace(value), `"`)
		bits, err := strconv.Atoi(value)
		switch good := err == nil && bits >= 8 && bits <= 15 && value[0] != '0' && value[0] != '+'; {
		case params == "": // there are none
		case slices.Contains(seen, name):
			return false, false
		case name == "client_no_context_takeover" && !has, name == "server_no_context_takeover" && !has:
		case name == "client_max_window_bits" && (!has || good):
		case name == "server_max_window_bits" && good && bits == 15:
			window = true
		default:
			return false, false
		}
		seen = append(seen, name)
	}
	return true, window
}

// noBuffers tells gorilla not to hold a write buffer: we write.
type noBuffers struct{}

func (noBuffers) Get() any { return nil }
func (noBuffers) Put(any)  {}

// upgrade is the response writer that gorilla sees. Caddy's writers are no Hijackers, they unwrap to one; and
// hijacking has to wait until the answer is known, so that it can go through Caddy's writers, to their logs and
// header operations. So gorilla is given a connection that is real only once it has written its answer.
type upgrade struct {
	w       http.ResponseWriter
	tunnel  bool // inside HTTP/2 or 3: there is nothing to hijack
	window  bool // the answer names the window; see offersDeflate
	connect func() error
	brw     *bufio.ReadWriter
	conn    net.Conn
	early   []byte // came with the handshake

	refused  error // by the hub
	err      error // by the server
	answered bool
}

// brws lends gorilla what it wants of a hijacked connection. It keeps nothing of it.
var brws = sync.Pool{New: func() any {
	return bufio.NewReadWriter(bufio.NewReaderSize(nil, 16), bufio.NewWriterSize(nil, 512))
}}

func (u *upgrade) release() {
	if u.brw != nil {
		u.brw.Reader.Reset(nil)
		u.brw.Writer.Reset(nil)
		brws.Put(u.brw)
	}
}

func (u *upgrade) Header() http.Header         { return u.w.Header() }
func (u *upgrade) Write(p []byte) (int, error) { return u.w.Write(p) }
func (u *upgrade) WriteHeader(status int)      { u.w.WriteHeader(status) }

// Hijack is called when the handshake is right and before it is answered.
func (u *upgrade) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	if u.refused = u.connect(); u.refused != nil {
		return nil, nil, u.refused
	}
	u.brw = brws.Get().(*bufio.ReadWriter)
	return lateConn{upgrade: u}, u.brw, nil
}

// lateConn is the connection that gorilla is given. All that it does with it is to write its answer.
type lateConn struct {
	net.Conn
	upgrade *upgrade
}

func (c lateConn) Write(head []byte) (int, error) {
	u := c.upgrade
	u.err = u.switchProtocols(head)
	return len(head), u.err
}

func (lateConn) Close() error                { return nil }
func (lateConn) SetDeadline(time.Time) error { return nil }

// switchProtocols sends gorilla's answer by way of Caddy.
func (u *upgrade) switchProtocols(head []byte) error {
	_, fields, _ := bytes.Cut(head, []byte("\r\n"))
	header, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(fields))).ReadMIMEHeader()
	if err != nil {
		return fmt.Errorf("reading the answer to the handshake: %w", err)
	}
	if u.tunnel {
		for _, name := range []string{"Connection", "Upgrade", "Sec-Websocket-Accept"} {
			header.Del(name)
		}
	}
	if u.window {
		header["Sec-Websocket-Extensions"][0] += "; server_max_window_bits=15"
	}
	for name, values := range header {
		u.w.Header()[name] = values
	}
	if u.tunnel {
		u.answered = true
		u.w.WriteHeader(http.StatusOK)
		return http.NewResponseController(u.w).Flush()
	}
	u.conn, u.early, err = socket.Hijack(u.w, func() error {
		u.answered = true
		u.w.WriteHeader(http.StatusSwitchingProtocols)
		return nil
	})
	return err
}
