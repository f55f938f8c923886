// Package websocket accepts WebSocket clients: the handshake, which gorilla/websocket checks, and the reading. The hub
// writes, through the connection's socket.
package websocket

import (
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
)

// Endpoint is what the WebSockets of a route have in common.
type Endpoint struct {
	*protocol.Endpoint

	// Offers are what clients can choose from. The first one is for those that ask for none of the others.
	Offers []Offer

	// Rate bounds what each client sends: messages, requests, and pings.
	Rate ratelimit.Limit

	// Poller reads for the clients, where it can.
	Poller *socket.Poller
}

// Offer is a protocol on a route, for clients that have not, and have, negotiated permessage-deflate. If Deflated is nil,
// permessage-deflate is declined.
type Offer struct {
	Protocol        protocol.Protocol
	Plain, Deflated *hub.ConnOptions
}

// Offers returns the offers of a route with the protocols. Options returns the options of connections in a format.
// Messages of minDeflate bytes and more are deflated for clients that negotiate it; 0 is for no client.
func Offers(protocols protocol.Set, minDeflate int, options func(hub.Format) *hub.ConnOptions) (offers []Offer) {
	for _, p := range protocols {
		o := Offer{Protocol: p, Plain: options(p.Format(0))}
		if minDeflate > 0 {
			o.Deflated = options(p.Format(minDeflate))
		}
		offers = append(offers, o)
	}
	return offers
}

// choice is what a handshake has come to.
type choice struct {
	protocol protocol.Protocol
	options  *hub.ConnOptions
	deflates bool
	header   http.Header // of the response
}

// Accept makes the request a WebSocket. On HTTP/1 it takes the connection over and returns while it goes on; on HTTP/2
// and 3 it returns at the WebSocket's end. The client is subscribed before its handshake is answered, so whatever is
// published after it knows that it is connected reaches it. Accept calls connected when the handshake was answered. If it
// returns an error, it has not answered.
func (e *Endpoint) Accept(w http.ResponseWriter, r *http.Request, req *protocol.Request, connected func()) error {
	// Nothing was done for the client until its handshake is known to be valid.
	chosen, err := e.negotiate(r)
	if err != nil {
		return rejectInvalid(w, r, err)
	}
	s, opened := e.newSession(chosen, req)
	// It ends with the client, so Connect does not wait for a client that is gone.
	req.Context = r.Context()
	client, welcome, err := e.Hub.Connect(req.Subscriber, chosen.options)
	if err != nil {
		return reject(w, r, http.StatusServiceUnavailable, err)
	}
	s.conn = client
	return e.serve(w, r, chosen, s, func() (start func(hub.Sink) bool) {
		// Start sends the greeting before all messages. What is published from Connect on waits in the backlog until then.
		first := opened.Greeting(client, chosen.options, welcome)
		connected()
		return func(to hub.Sink) bool { return client.Start(to, first) }
	})
}

// Mover is a client that has a connection, and moves it to a WebSocket.
type Mover interface {
	Peer

	// Receive is as that of a protocol.Session.
	Receive(frame.Message) error

	// Start gives it the WebSocket's sending half. It returns false if the client is gone: the caller closes the sink.
	Start(hub.Sink) bool
}

// Move is Accept for a client that has a connection already. The WebSocket is in the format of the first offer, and is not
// deflated. If Move returns an error, or the WebSocket could not begin, the client has got Done.
func (e *Endpoint) Move(w http.ResponseWriter, r *http.Request, m Mover) error {
	chosen, err := e.negotiate(r)
	if err != nil {
		m.Done()
		return rejectInvalid(w, r, err)
	}
	s := &session{conn: m, protocol: m, frames: frame.NewReader(chosen.protocol.MaxReceived(e.MaxMessage), chosen.deflates)}
	if e.Rate.PerSecond > 0 {
		s.limits = &limits{protocol.NewLimiter(e.Hub, e.Rate), rate.NewLimiter(freeControl, freeControlBurst)}
	}
	return e.serve(w, r, chosen, s, func() func(hub.Sink) bool { return m.Start })
}

// serve answers the handshake, and reads for the client. Answered is called when that is done, and returns what starts the
// sending half.
func (e *Endpoint) serve(w http.ResponseWriter, r *http.Request, chosen choice, s *session, answered func() (start func(hub.Sink) bool)) error {
	started := false
	defer func() {
		if !started { // it failed, or a writer in front has panicked
			s.conn.Done()
		}
	}()
	conn, early, gone, err := respond(w, r, chosen.header)
	switch {
	case err != nil && gone:
		return nil // nobody is left who could get a response
	case err != nil:
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	start := answered()
	started = true
	if conn == nil { // a tunnel lives as long as its handler
		stream := socket.NewStream(w, r)
		if !start(stream) {
			stream.Close()
		}
		stream.Receive(s)
		return nil
	}
	sock := socket.New(conn, early, s, e.Poller)
	if !start(sock) {
		sock.Close()
		return nil
	}
	sock.Receive()
	return nil
}

// rejectInvalid rejects a handshake that negotiate has found to be invalid.
func rejectInvalid(w http.ResponseWriter, r *http.Request, err error) error {
	status := http.StatusBadRequest
	if invalid := new(handshakeError); errors.As(err, &invalid) {
		status = invalid.status
		w.Header().Set("Sec-WebSocket-Version", "13")
	}
	return reject(w, r, status, err)
}

// negotiate checks the handshake and chooses the subprotocol and the compression. A subprotocol that we do not know is
// selected if there is no other, because browsers fail the connection if the server selects none that they offered (RFC
// 6455, section 4.1).
func (e *Endpoint) negotiate(r *http.Request) (c choice, err error) {
	offered, err := checkRequest(r)
	if err != nil {
		return c, err
	}
	offer := e.Offers[0]
	subprotocol := ""
	if len(offered) > 0 {
		subprotocol = offered[0]
	}
	for _, o := range e.Offers[1:] { // in our order: RFC 6455, section 4.2.2, leaves the choice to the server
		if slices.Contains(offered, o.Protocol.Name()) {
			offer, subprotocol = o, o.Protocol.Name()
			break
		}
	}
	c.protocol, c.options = offer.Protocol, offer.Plain
	window := false
	if offer.Deflated != nil {
		if c.deflates, window = offersDeflate(r.Header); c.deflates {
			c.options = offer.Deflated
		}
	}
	if c.header, err = upgrade(r, strings.Clone(subprotocol), c.deflates); err != nil {
		return c, err
	}
	if window { // gorilla cannot say it
		c.header["Sec-Websocket-Extensions"][0] += "; server_max_window_bits=15"
	}
	return c, nil
}

// respond answers the handshake by way of Caddy's writers. On HTTP/1 it returns the connection, and what of it was read
// already.
func respond(w http.ResponseWriter, r *http.Request, header http.Header) (conn net.Conn, early []byte, answered bool, err error) {
	// In HTTP/2 and HTTP/3 the request's stream is the connection, and a WebSocket begins with the status 200 (RFC
	// 8441, section 5).
	tunnel := isTunnel(r)
	// Caddy's writers see the whole response: deferred header operations apply, and the access log has the status 101.
	for name, values := range header {
		if tunnel && (name == "Connection" || name == "Upgrade" || name == "Sec-Websocket-Accept") {
			continue // RFC 8441, section 5
		}
		w.Header()[name] = values
	}
	if tunnel {
		w.WriteHeader(http.StatusOK)
		return nil, nil, true, http.NewResponseController(w).Flush()
	}
	conn, early, err = socket.Hijack(w, func() error {
		answered = true
		w.WriteHeader(http.StatusSwitchingProtocols)
		return nil
	})
	return conn, early, answered, err
}

// reject rejects a handshake. An HTTP/1 connection is closed, because some clients use it as if it were a WebSocket.
func reject(w http.ResponseWriter, r *http.Request, status int, err error) error {
	if r.ProtoMajor == 1 {
		w.Header().Set("Connection", "close")
	}
	if status == http.StatusServiceUnavailable {
		publish.RetryLater(w)
	}
	return caddyhttp.Error(status, err)
}
