package route

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/origin"
	"github.com/caddy-broadcast/caddy-broadcast/internal/pattern"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio/packet"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
)

// SocketIO configures the protocol of Socket.IO.
type SocketIO struct {
	// The namespaces besides `/` that clients can connect to; `*` matches any text. Each is the channel of the same name.
	// A client that asks for another one gets a `connect_error`. Default: none.
	Namespaces []string `json:"namespaces,omitempty"`

	// How long a client that lost its connection can resume its session on this server. It keeps its rooms, and gets what it
	// has missed, as far back as `history` of the app `broadcast` goes. If something is no longer kept, it gets a new session,
	// and its `socket.recovered` is `false`. With a message broker, a client can also resume on another server, as far back as
	// `history` goes, if the route has no `join`. For recovery, each event has one more argument, its ID, which the handlers
	// in pages get too. Turn it off with `0` if a handler cannot cope with that. Default: `2m` if there is `history`, otherwise
	// off. Maximum: `1h`.
	Recovery *caddy.Duration `json:"recovery,omitempty"`

	// The event with which clients join rooms, if the route has `join`. Its first argument is the name of a room, an array of
	// names, or an object with a member `room` or `channel`. It is not published. Set it to the event that your pages already
	// use. Default: `join`.
	JoinEvent string `json:"join_event,omitempty"`

	// The event with which clients leave rooms, with the same arguments as `join_event`. Default: `leave`.
	LeaveEvent string `json:"leave_event,omitempty"`

	// The event that carries the route's `greeting` to each client that connects to a namespace. If the text is a JSON object
	// or array, the event has that as its argument. Default: `message`.
	GreetingEvent string `json:"greeting_event,omitempty"`
}

const (
	defaultRecovery = caddy.Duration(2 * time.Minute) // as the reference's
	maxRecovery     = time.Hour
)

// withDefaults returns the options with their defaults.
func (s *SocketIO) withDefaults(history bool) *SocketIO {
	if s == nil {
		return nil
	}
	o := *s
	if o.Recovery == nil {
		o.Recovery = new(caddy.Duration)
		if history {
			*o.Recovery = defaultRecovery
		}
	}
	if o.JoinEvent == "" {
		o.JoinEvent = "join"
	}
	if o.LeaveEvent == "" {
		o.LeaveEvent = "leave"
	}
	if o.GreetingEvent == "" {
		o.GreetingEvent = packet.DefaultEvent
	}
	return &o
}

// validateSocketIO checks the options of Socket.IO, and those that it changes the meaning of.
func (c *Config) validateSocketIO() error {
	s := c.SocketIO
	if s == nil {
		if slices.Contains(c.Transports, Polling) {
			return errors.New("the transport polling is only for socketio, which is not on")
		}
		return nil
	}
	for _, name := range c.Channels {
		// A channel's name tells to which namespace it belongs.
		if strings.HasPrefix(name, "/") {
			return fmt.Errorf("channel %q begins with a slash, as only namespaces of socketio do", name)
		}
	}
	for _, name := range s.Namespaces {
		if !strings.HasPrefix(name, "/") || name == packet.MainNamespace || strings.ContainsAny(name, ",?") {
			return fmt.Errorf("namespace %q must begin with a slash, have more than that, and no comma or question mark", name)
		}
		if err := hub.CheckName(fmt.Sprintf("namespace %q", name), name); err != nil {
			return err
		}
		if len(name) > socketio.MaxNamespace {
			return fmt.Errorf("namespace %q has %d bytes, more than %d", name, len(name), socketio.MaxNamespace)
		}
	}
	if r := time.Duration(*s.Recovery); r < 0 || r > maxRecovery {
		return fmt.Errorf("socketio's recovery is %s, must be 0 to 1h", r)
	}
	if s.JoinEvent == s.LeaveEvent {
		return fmt.Errorf("socketio's join_event and leave_event are both %q", s.JoinEvent)
	}
	for _, event := range []string{s.JoinEvent, s.LeaveEvent, s.GreetingEvent} {
		if packet.Reserved(event) {
			return fmt.Errorf("%q is an event of Socket.IO's own", event)
		}
		if err := hub.CheckName(fmt.Sprintf("event %q", event), event); err != nil {
			return err
		}
	}
	if !slices.Contains(c.Transports, Polling) && !slices.Contains(c.Transports, WebSocket) {
		return errors.New("socketio needs the transport websocket or polling")
	}
	return nil
}

// newEngine returns the endpoint of the route's Socket.IO clients, or nil.
func (route *Route) newEngine(c *Config) *socketio.Endpoint {
	s := c.SocketIO
	if s == nil {
		return nil
	}
	e := &socketio.Endpoint{
		Endpoint: route.sockets.Endpoint, Table: c.SocketIOTable, Route: quotaKey(c.Channels), Rate: route.sockets.Rate,
		Recovery: time.Duration(*s.Recovery), JoinEvent: s.JoinEvent, LeaveEvent: s.LeaveEvent, GreetingEvent: s.GreetingEvent,
	}
	if len(s.Namespaces) > 0 {
		e.MayConnect = pattern.ParseList(s.Namespaces).Matches
	}
	// Their connections end with the route's others (Retire), so their options are the route's too.
	p := socketio.Protocol{Endpoint: e}
	options := func(transport string) func(hub.Format) *hub.ConnOptions {
		make := route.connOptions(*c, transport)
		return func(f hub.Format) *hub.ConnOptions {
			o := make(f)
			o.Observer = c.SocketIOTable.Observe(o.Observer)
			o.Next = WebSocket // those that poll may move to it
			return o
		}
	}
	if slices.Contains(c.Transports, WebSocket) {
		e.Sockets = &websocket.Endpoint{
			Endpoint: e.Endpoint, Offers: websocket.Offers(protocol.Set{p}, 0, options(WebSocket)),
			Rate: e.Rate, Poller: c.Poller,
		}
	}
	if slices.Contains(c.Transports, Polling) {
		e.Polling = options(Polling)(p.Format(0))
	}
	return e
}

// serveEngine serves a request of a Socket.IO client. What is refused is told as such clients know it.
func (route *Route) serveEngine(w http.ResponseWriter, r *http.Request) error {
	if route.checkOrigin(w, r) != nil {
		return socketio.Refuse(w, r, packet.Forbidden)
	}
	if origin.IsPreflight(r) {
		// Pages may have any headers sent (extraHeaders). Theirs is the permission that the origin has.
		if asked := r.Header.Get("Access-Control-Request-Headers"); asked != "" {
			w.Header().Set("Access-Control-Allow-Headers", asked)
		}
		allowPreflight(w)
		return nil
	}
	c, err := route.identify(r)
	if errors.Is(err, errExpired) {
		if r.URL.Query().Get("sid") == "" {
			return socketio.Refuse(w, r, packet.Unauthorized)
		}
		err = nil // the session is about to be closed, and a client that polls has to get to know why
	}
	if err != nil || slices.ContainsFunc(c.channels, func(name string) bool { return strings.HasPrefix(name, "/") }) {
		return socketio.Refuse(w, r, packet.BadRequest)
	}
	route.markLogReader(r, &c, r.URL.Query().Get("sid") != "")
	request := route.request(r, &c, route.subscriber(r, &c))
	// As for raw WebSockets: a text frame has to be UTF-8.
	request.Greeting = strings.ToValidUTF8(c.repl.ReplaceAll(route.greeting, ""), "\uFFFD")
	channels := request.Channels // it is on none yet
	return route.engine.Serve(w, r, request, func(transport string) {
		request.Channels = channels
		route.logConnected(r, transport, request.Subscriber)
	})
}
