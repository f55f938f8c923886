// Package v1 is the protocol broadcast.v1: JSON with IDs, channels and events, over a WebSocket, as an event stream, and by
// POST. Docs/protocol.md describes it for clients.
package v1

import (
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/frame"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
)

// Name is the name of the subprotocol.
const Name = "broadcast.v1"

const (
	// maxEnvelope is how many bytes a frame may have in addition to twice those of the largest message, which quotes, or base64,
	// make larger.
	maxEnvelope = 4 << 10

	// maxRejected is how many requests in a row are answered with the error rate before the client is closed: enough that
	// a client which sends in bursts gets the answers and can slow down.
	maxRejected = 20
)

// Protocol implements protocol.Streamer and protocol.Poster. A client that has no WebSocket uses both: it receives on an
// event stream and sends by POST.
type Protocol struct{}

// Name returns Name.
func (Protocol) Name() string { return Name }

// Format returns a Format.
func (Protocol) Format(minDeflate int) hub.Format { return Format{minDeflate} }

// StreamFormat returns a StreamFormat.
func (Protocol) StreamFormat() hub.Format { return StreamFormat{} }

// MaxReceived returns the size of the longest frame with requests.
func (Protocol) MaxReceived(maxMessage int) int { return 2*maxMessage + maxEnvelope }

// Open begins a session, on the channels of the route and on those that the query joins.
func (Protocol) Open(e *protocol.Endpoint, r *protocol.Request) protocol.Session {
	r.Limiter.Tolerate(maxRejected) // unlike a raw client, this one can be told
	s := &session{
		endpoint:      e,
		limiter:       r.Limiter,
		routeChannels: r.Channels,
		publishOn:     r.Publish,
		mayJoin:       r.MayJoin,
	}
	s.opening = open(r)
	return s
}

// OpenStream begins an event stream.
func (Protocol) OpenStream(r *protocol.Request) protocol.Greeter { return streamOpening{open(r)} }

// opening is what a client learns with the hello. It is gone with it.
type opening struct {
	channels []string
	errors   []byte // what of the query was rejected
	expires  time.Time
}

// open adds the channels that the query joins to those of the request.
func open(r *protocol.Request) *opening {
	o := &opening{expires: r.Expires}
	r.Channels, o.errors = grant(r.Channels, r.Query["join"], r.MayJoin)
	if o.channels = r.Channels; r.All {
		o.channels = []string{"*"}
	}
	return o
}

// hello is the same for both transports. Only the frame around it differs.
func (o *opening) hello(c *hub.Conn, options *hub.ConnOptions, w hub.Welcome) hello {
	return hello{c.ID(), o.channels, w, options.PingInterval, o.expires, o.errors}
}

// streamOpening greets an event stream, which needs no session: nothing comes from its client.
type streamOpening struct{ *opening }

func (o streamOpening) Greeting(c *hub.Conn, options *hub.ConnOptions, w hub.Welcome) []byte {
	return StreamFormat{}.start(o.hello(c, options, w))
}

// session is a client that has a WebSocket.
type session struct {
	endpoint      *protocol.Endpoint
	conn          *hub.Conn
	format        Format // deflates or not, as the connection has negotiated
	limiter       *protocol.Limiter
	routeChannels []string // what the route subscribed it to
	publishOn     []string // the channels of the route that it may publish on
	mayJoin       func(channel string) bool
	opening       *opening // until Greeting
}

// Greeting returns the hello.
func (s *session) Greeting(c *hub.Conn, options *hub.ConnOptions, w hub.Welcome) []byte {
	s.conn, s.format = c, options.Format.(Format)
	first := s.format.hello(s.opening.hello(c, options, w))
	s.opening = nil
	return first
}

// Receive does what a frame asks for. Its own errors do not close the client: they are replies, so that one wrong request
// does not cost a page its connection.
func (s *session) Receive(f frame.Message) error {
	// Its data is lent: what is published is decoded to memory of its own.
	data, err := f.Data()
	if err != nil {
		return err
	}
	return s.requests(f.Opcode, data)
}
