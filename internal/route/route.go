// Package route is what a request to a route goes through: which kind it is, the page's origin, the client's user and
// channels, and then the WebSocket, the event stream, or the message.
//
// A Route is made of a handler's options when the handler is provisioned. Requests see the Route alone, so they cannot read
// an option that should have been compiled.
package route

import (
	"slices"
	"strings"

	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/events"
	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/httperror"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/origin"
	"github.com/caddy-broadcast/caddy-broadcast/internal/pattern"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol/raw"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
)

// The names of the transports, as options, metrics and lists have them.
const (
	WebSocket   = hub.TransportWebSocket
	EventStream = hub.TransportEventStream
	Post        = hub.SourcePost
	Polling     = hub.TransportPolling
)

// Transports are the names of all transports.
var Transports = []string{WebSocket, EventStream, Post, Polling}

// Protocols are what the clients of a route can speak. The first one is for those that ask for none of the others.
var Protocols = protocol.Set{raw.Protocol{}, v1.Protocol{}}

// Route serves the requests to a handler.
// Nothing in it changes after New, so requests read it without a lock.
type Route struct {
	hub     *hub.Hub
	sockets websocket.Endpoint
	streams eventstream.Endpoint
	engine  *socketio.Endpoint // nil without Socket.IO
	options []*hub.ConnOptions // of all the route's connections
	errors  *httperror.Responder
	logger  *zap.Logger

	acceptsSockets, acceptsStreams, acceptsPosts bool
	publish, subscribe                           bool

	origins    []origin.Pattern
	channels   []string // with placeholders, as are user, expires and greeting
	user       string
	expires    string
	member     string // "" without presence
	memberText string // member, for the replacer
	greeting   string
	join       pattern.List
	ipv6Prefix int
	common     hub.Subscriber // what all subscribers of the route have in common

	maxMessage       int64
	query            []string // parameters that a POST may have besides those of a message
	channelFromQuery bool     // the parameter channel is a part of the route's channels
	posters          *ratelimit.Keyed
}

// New returns the route of a handler with these options. An error is one of the origins.
func New(c Config) (*Route, error) {
	limit := c.Rate.limit()
	route := &Route{
		hub:            c.Hub,
		errors:         c.Errors,
		logger:         c.Logger,
		acceptsSockets: slices.Contains(c.Transports, WebSocket),
		acceptsStreams: slices.Contains(c.Transports, EventStream),
		acceptsPosts:   slices.Contains(c.Transports, Post),
		publish:        c.Publish,
		subscribe:      c.Subscribe,
		channels:       c.Channels,
		user:           c.User,
		expires:        c.Expires,
		member:         c.Member,
		memberText:     escapeJSON(c.Member),
		greeting:       escapeJSON(c.Greeting),
		ipv6Prefix:     c.IPv6Prefix,
		maxMessage:     c.MaxMessage,
		posters:        ratelimit.NewKeyed(limit),
		common: hub.Subscriber{
			Route:          quotaKey(c.Channels),
			MaxConnections: c.MaxConnections,
			MaxPerRemote:   c.MaxPerIP,
		},
	}
	// Without subscribing there is nothing to replay, and Validate has rejected an option that says so.
	if c.Subscribe {
		route.common.Replay = c.Replay
	}
	for _, s := range c.Origins {
		p, err := origin.Parse(s)
		if err != nil {
			return nil, err
		}
		route.origins = append(route.origins, p)
	}
	route.join = pattern.ParseList(c.Join)
	// Once, because requests do not change which placeholders the options have.
	expanded := queryNames(slices.Concat(c.Channels, c.Join, []string{c.User, c.Member, c.Greeting, c.Expires}))
	route.channelFromQuery = slices.Contains(expanded, "channel")
	// A POST may have the parameters of a stream too, so that a client can use one address for both.
	route.query = slices.Concat(c.Query, expanded, []string{"join", "last_id"})
	route.sockets = websocket.Endpoint{
		Endpoint: &protocol.Endpoint{Hub: c.Hub, MaxMessage: int(c.MaxMessage), NoEcho: !c.Echo},
		Offers:   websocket.Offers(Protocols, c.Compression.minSize(), route.connOptions(c, WebSocket)),
		Rate:     limit,
		Poller:   c.Poller,
	}
	route.streams = eventstream.Endpoint{
		Hub:    c.Hub,
		Offers: eventstream.Offers(Protocols, route.connOptions(c, EventStream)),
		Poller: c.Poller,
	}
	route.engine = route.newEngine(&c)
	route.warnOfOpenPublishing(c)
	return route, nil
}

// quotaKey returns what the connections of a route are counted by. Routes with the same channels share their quotas, and
// so does a route with itself after a reload.
func quotaKey(channels []string) string { return strings.Join(channels, "\x00") }

// connOptions returns a function that makes the options of connections by a transport in a format.
func (route *Route) connOptions(c Config, transport string) func(hub.Format) *hub.ConnOptions {
	return func(f hub.Format) *hub.ConnOptions {
		o := &hub.ConnOptions{
			Transport:    transport,
			Format:       f,
			PingInterval: c.PingInterval,
			WriteTimeout: c.WriteTimeout,
			MaxBacklog:   int(c.MaxBacklog),
			DropOldest:   c.Slow == slowDrop,
			Conflate:     c.Slow == slowConflate,
			DeliverEvery: c.DeliverEvery,
			NoSubscribe:  !c.Subscribe,
			Observer:     observer{c.Logger, events.Observer{Emitter: c.Emitter}},
		}
		if c.Presence != nil {
			o.Observer = c.PresenceTable.Observe(o.Observer, c.Presence.grace())
		}
		// Retire finds the route's connections by these, whatever their format.
		route.options = append(route.options, o)
		return o
	}
}

// Retire closes the route's connections for a reason. A handshake that is under way is rejected; the client reconnects, to
// the new configuration.
func (route *Route) Retire(why hub.Reason, text string) { route.hub.Retire(route.options, why, text) }

// queryNames returns the names of the query parameters that the texts expand. A POST may have those, while others are
// rejected, because a misspelled `channel` would send the message to another one.
func queryNames(texts []string) (names []string) {
	const placeholder = "{http.request.uri.query."
	for _, text := range texts {
		for _, after := range strings.Split(text, placeholder)[1:] {
			if name, _, ok := strings.Cut(after, "}"); ok {
				names = append(names, name)
			}
		}
	}
	return names
}
