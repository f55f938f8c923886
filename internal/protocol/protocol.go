// Package protocol is the seam between the transports and what clients speak on them. A transport, such as
// internal/websocket, knows handshakes and connections; a protocol knows what the bytes mean. A new protocol is a package
// of its own next to this one, and one more entry in the list of protocols of a route.
//
// The life of a client: the transport picks the Protocol that the client asks for and calls Open, subscribes the client as
// Open left the Request, answers the handshake, and sends the Session's Greeting. Each message of the client goes to
// Receive, until the transport ends.
package protocol

import (
	"net/http"
	"net/url"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// Protocol is what the clients of one WebSocket subprotocol speak. It has no state: all connections share it. It may
// also be a Streamer or a Poster.
type Protocol interface {
	// Name returns the subprotocol that clients ask for, or "" for what clients speak that ask for none of the others.
	Name() string

	// Format returns how messages are written. Those of minDeflate bytes and more are deflated; 0 is never. Connections
	// share encoded messages if their formats are equal, so it has to be comparable, and the same for the same minDeflate.
	Format(minDeflate int) hub.Format

	// MaxReceived returns how many bytes a message of the client may have, where one that it publishes has maxMessage.
	MaxReceived(maxMessage int) int

	// Open begins a session. It is called before the client is subscribed, and may change what the Request subscribes to.
	Open(*Endpoint, *Request) Session
}

// Session is one client.
type Session interface {
	Greeter

	// Receive takes a message of the client, as a *frame.CloseError closes it. Any other error says that the client is
	// being closed already. One goroutine calls it at a time.
	Receive(frame.Message) error
}

// Greeter returns what a client gets before all messages. It is called once, after the client was subscribed and before
// Receive.
type Greeter interface {
	Greeting(*hub.Conn, *hub.ConnOptions, hub.Welcome) []byte
}

// Streamer is a Protocol that also has a form for event streams.
type Streamer interface {
	Protocol

	// StreamFormat returns how messages are written on an event stream.
	StreamFormat() hub.Format

	// OpenStream is Open for an event stream, whose client sends nothing.
	OpenStream(*Request) Greeter
}

// Poster is a Protocol whose clients can send by HTTP POST what they would send on a WebSocket.
type Poster interface {
	Protocol

	// Post does what the body asks for, and answers. Reject counts a request and reports whether it is one too many.
	Post(w http.ResponseWriter, e *Endpoint, r *Request, body []byte, reject func() bool) error
}

// Endpoint is what the clients of a route have in common.
type Endpoint struct {
	Hub *hub.Hub

	// MaxMessage is the size in bytes of the longest message that a client may publish, inflated.
	MaxMessage int

	// NoEcho keeps a client's own messages from it.
	NoEcho bool
}

// Request is what a client may do, and what it asked for.
type Request struct {
	hub.Subscriber

	// Publish are the channels that the client may publish on. A message without a channel goes to the first one. It is
	// empty if the client may not publish.
	Publish []string

	// MayJoin reports whether the client may join a channel that the route did not subscribe it to. It is nil if it may
	// join none.
	MayJoin func(channel string) bool

	// Query is the query of the client's address.
	Query url.Values

	// Greeting is a text that the route has for new clients. Not every protocol can show it.
	Greeting string

	// Limiter bounds how fast the client sends. Nil means no limit.
	Limiter *Limiter
}

// Set is the protocols of a route. The first one, whose name is empty, is for clients that ask for none of the others.
type Set []Protocol

// QueryParameter names the protocol in a request for an event stream and in a POST, which have no header for it.
const QueryParameter = "protocol"

// Queried returns the protocol that a query names.
func (s Set) Queried(query url.Values) Protocol {
	name := query.Get(QueryParameter)
	for _, p := range s {
		if p.Name() == name {
			return p
		}
	}
	return s[0]
}
