// Package socketio is Socket.IO v5 on Engine.IO v4: sessions and their transports, long polling and WebSockets. What clients
// send and get is in package packet.
//
// A client is one hub.Conn. It begins on no channel. With each namespace that it connects to it enters the namespace's
// channels, and gets a name in the hub, its socket.id, by which backends address it. A client that begins by polling has a
// transport as the connection's sink, which can hand on to a WebSocket later; one that begins with a WebSocket is like the
// clients of other protocols.
package socketio

import (
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
)

// The transports of Engine.IO, as requests name them.
const (
	polling   = "polling"
	webSocket = "websocket"
)

// Endpoint is what the Socket.IO clients of a route have in common.
type Endpoint struct {
	*protocol.Endpoint
	Table *Table
	Route string // what a session is bound to; the same after a reload
	Rate  ratelimit.Limit

	Sockets *websocket.Endpoint // has one offer, which is Protocol; nil if the route takes no WebSockets
	Polling *hub.ConnOptions    // nil if it takes no polling

	// MayConnect reports whether there is a namespace, besides the main one. Nil means that there is none.
	MayConnect func(namespace string) bool

	Recovery              time.Duration // how long a session can be recovered after its end; 0 is off
	JoinEvent, LeaveEvent string
	GreetingEvent         string
}

// Protocol is what a client speaks that begins with a WebSocket.
type Protocol struct{ *Endpoint }

// Name returns "": Engine.IO is no subprotocol.
func (Protocol) Name() string { return "" }

// Format returns a Format. Nothing is deflated, as by the reference's default.
func (p Protocol) Format(int) hub.Format { return Format{p.Recovery > 0} }

// minPayload is the least that clients may send at once, however short messages have to be.
const minPayload = 64 << 10

// maxPayloadExtra is how much longer than two messages a payload may be: base64 and escapes make them longer.
const maxPayloadExtra = 4 << 10

// MaxReceived returns the size of the longest packet.
func (Protocol) MaxReceived(maxMessage int) int {
	return max(2*maxMessage+maxPayloadExtra, minPayload)
}

// Open begins a session.
func (p Protocol) Open(_ *protocol.Endpoint, r *protocol.Request) protocol.Session {
	return p.open(r)
}

func (e *Endpoint) maxPayload() int { return Protocol{e}.MaxReceived(e.MaxMessage) }

// handshake returns what a session begins with.
func (e *Endpoint) handshake(sid string, polls bool, o *hub.ConnOptions) packet.Handshake {
	return packet.Handshake{
		SID: sid, Upgrade: polls && e.Sockets != nil,
		// The hub ends a connection that has not answered two pings.
		PingInterval: o.PingInterval, PingTimeout: o.PingInterval, MaxPayload: e.maxPayload(),
	}
}

// Wants reports whether a request is one of Engine.IO. All of its requests name a transport and a version.
func Wants(r *http.Request) bool {
	for name := range strings.SplitSeq(r.URL.RawQuery, "&") {
		if strings.HasPrefix(name, "transport=") || strings.HasPrefix(name, "EIO=") {
			return true
		}
	}
	return false
}

// Refuse answers a request that the route refuses.
func Refuse(w http.ResponseWriter, r *http.Request, why packet.Refusal) error {
	if r.ProtoMajor == 1 && websocket.IsRequest(r) {
		w.Header().Set("Connection", "close") // the client may have sent frames after its handshake
	}
	return refuse(w, why)
}

func refuse(w http.ResponseWriter, why packet.Refusal) error {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(why.Status)
	_, err := w.Write(why.Body())
	return err
}

// Serve serves a request of a client. The checks are in the order of the reference, as clients may rely on which of two errors
// they get (engine.io, lib/server.ts, verify). It calls connected when a client has connected.
func (e *Endpoint) Serve(w http.ResponseWriter, r *http.Request, req *protocol.Request, connected func(transport string)) error {
	name, sid := req.Query.Get("transport"), req.Query.Get("sid")
	upgrades := websocket.IsRequest(r)
	if (name != polling || e.Polling == nil) && (name != webSocket || e.Sockets == nil) {
		return Refuse(w, r, packet.UnknownTransport)
	}
	if sid != "" {
		return e.serveSession(w, r, req, sid, upgrades && name == webSocket)
	}
	switch {
	case r.Method != http.MethodGet && !upgrades:
		return Refuse(w, r, packet.BadHandshakeMethod)
	case upgrades != (name == webSocket):
		return Refuse(w, r, packet.BadRequest)
	case req.Query.Get("EIO") != "4":
		return Refuse(w, r, packet.UnsupportedVersion)
	case upgrades:
		return e.Sockets.Accept(w, r, req, func() { connected(webSocket) })
	}
	return e.begin(w, r, req, connected)
}

// serveSession serves a request with a session.
func (e *Endpoint) serveSession(w http.ResponseWriter, r *http.Request, req *protocol.Request, sid string, upgrades bool) error {
	p := e.Table.find(sid, e.Route)
	switch {
	case p == nil:
		return Refuse(w, r, packet.UnknownSession)
	case p.user != req.User:
		return Refuse(w, r, packet.Forbidden)
	case upgrades:
		return p.upgrade(w, r, e.Sockets)
	case websocket.IsRequest(r), req.Query.Get("transport") != polling, !p.transport.polls():
		return Refuse(w, r, packet.BadRequest)
	case r.Method == http.MethodGet:
		return p.get(w, r)
	case r.Method == http.MethodPost:
		return p.post(w, r)
	}
	return Refuse(w, r, packet.BadRequest)
}

// begin begins a session by polling.
func (e *Endpoint) begin(w http.ResponseWriter, r *http.Request, req *protocol.Request, connected func(transport string)) error {
	if e.Rate.PerSecond > 0 {
		l := protocol.NewLimiter(e.Hub, e.Rate)
		req.Limiter = &l
	}
	s := e.open(req)
	req.Context = r.Context()
	conn, _, err := e.Hub.Connect(req.Subscriber, e.Polling)
	if err != nil {
		publish.RetryLater(w)
		return caddyhttp.Error(http.StatusServiceUnavailable, err)
	}
	p := newPoller(s, e.Polling)
	s.begin(conn, e.Polling)
	e.Table.add(p)
	if !conn.Start(&p.transport, nil) {
		p.transport.Close()
		return Refuse(w, r, packet.UnknownSession) // it was closed already
	}
	connected(polling)
	if err := respond(w, plainText, e.handshake(p.sid, true, e.Polling).Append(nil)); err != nil {
		p.leave()
	}
	return nil
}
