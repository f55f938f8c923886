package broadcast

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-broadcast/caddy-broadcast/client"
	_ "github.com/caddy-broadcast/caddy-broadcast/internal/admin"
	_ "github.com/caddy-broadcast/caddy-broadcast/internal/command"
	"github.com/caddy-broadcast/caddy-broadcast/internal/events"
	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/httperror"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/metrics"
	"github.com/caddy-broadcast/caddy-broadcast/internal/origin"
	"github.com/caddy-broadcast/caddy-broadcast/internal/placement"
	"github.com/caddy-broadcast/caddy-broadcast/internal/post"
	"github.com/caddy-broadcast/caddy-broadcast/internal/rates"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

func init() {
	caddy.RegisterModule(App{})
	caddy.RegisterModule(Handler{})
}

// App is the hub that all `broadcast` handlers of a Caddy process share, and with it every connection. It need not be
// configured: the first handler brings it. A config reload keeps the hub and all connections; its options apply at
// once.
type App struct {
	// How long to gather messages before they are written, so that more of them share a write. Without it messages
	// that arrive while others are being written are gathered, and no message waits. Default: `0`. Maximum: `1s`.
	Coalesce caddy.Duration `json:"coalesce,omitempty"`

	// How many messages each channel keeps, for those who resume, or subscribe with `replay`. Default: `0`, none.
	History int `json:"history,omitempty"`

	// How long a message is kept at most. Default: `0`, as long as there is room.
	HistoryMaxAge caddy.Duration `json:"history_max_age,omitempty"`

	// How many bytes the messages of all channels may take that are kept; the oldest go first. About 256 bytes are
	// counted for a message besides its data. Default: `67108864` (64 MiB).
	HistoryBytes int64 `json:"history_bytes,omitempty"`

	// How many bytes may wait for all connections, and be kept, together: backlogs, what is replayed, the history, messages
	// that clients have not finished, idempotency keys, and inboxes. From five eighths of it on, the connections that hold
	// most are closed with 1013, as long as they hold 64 KiB or more; then the oldest of the history goes; then connections
	// that hold less. While it is reached, new connections and messages by HTTP get a 503. Bytes that wait for several
	// connections count once. Default: `0`, no limit. Minimum: `1048576` (1 MiB).
	MaxMemory int64 `json:"max_memory,omitempty"`

	// How many connections there may be at once, over all routes. Further ones are answered 503 with Retry-After.
	// Default: `0`, no limit.
	MaxConnections int `json:"max_connections,omitempty"`

	// How many channels may have subscribers at once. A connection that would open one more is answered 503.
	// Default: `0`, no limit.
	MaxChannels int `json:"max_channels,omitempty"`

	// How long closing the connections takes when the process exits: they are told to come back one after the other, not
	// all at once. New ones are refused meanwhile. Default: `0`. Maximum: `10m`.
	ShutdownDelay caddy.Duration `json:"shutdown_delay,omitempty"`

	ctx     caddy.Context
	hub     *hub.Hub
	poller  *socket.Poller
	emitter *events.Emitter
	release func() error // the hub, once
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "broadcast", New: func() caddy.Module { return new(App) }}
}

// hubs holds the hub while any loaded configuration uses it.
var hubs = caddy.NewUsagePool()

const hubKey = "hub"

// minMemory leaves room for a few backlogs that are not large.
const minMemory = 1 << 20

// closeTimeout is how long the last configuration that uses the hub waits for clients to say goodbye.
const closeTimeout = 2 * time.Second

// What connections are told at the end (RFC 6455, section 7.4, and IANA's registry).
const (
	closeCode = 1012
	closeText = "service restart"
)

// pooledHub is the hub, what reads for its connections, and what emits their events.
type pooledHub struct {
	hub     *hub.Hub
	poller  *socket.Poller
	emitter *events.Emitter
}

// Destruct closes all connections, which net/http has long forgotten.
func (p pooledHub) Destruct() error {
	p.hub.Close(closeCode, closeText, 0, closeTimeout)
	p.poller.Close()
	p.emitter.Close()
	return nil
}

// Provision sets up the app.
func (a *App) Provision(ctx caddy.Context) error {
	// Options are applied by Start: until then this configuration may yet be refused.
	value, _, err := hubs.LoadOrNew(hubKey, func() (caddy.Destructor, error) {
		return pooledHub{hub.New(hub.Options{}), socket.NewPoller(), events.New()}, nil
	})
	if err != nil {
		return err
	}
	pooled := value.(pooledHub)
	a.ctx, a.hub, a.poller, a.emitter = ctx, pooled.hub, pooled.poller, pooled.emitter
	a.release = sync.OnceValue(func() error {
		_, err := hubs.Delete(hubKey)
		return err
	})
	return metrics.Register(ctx.GetMetricsRegistry(), a.hub, a.emitter)
}

// Validate checks the options.
func (a *App) Validate() error {
	switch {
	case a.Coalesce < 0 || time.Duration(a.Coalesce) > time.Second:
		return fmt.Errorf("coalesce is %s, must be 0 to 1s", time.Duration(a.Coalesce))
	case a.History < 0:
		return fmt.Errorf("history is %d, must not be negative", a.History)
	case a.HistoryMaxAge < 0:
		return fmt.Errorf("history's max_age is %s, must not be negative", time.Duration(a.HistoryMaxAge))
	case a.HistoryBytes < 0:
		return fmt.Errorf("history_bytes is %d, must not be negative", a.HistoryBytes)
	case a.MaxMemory != 0 && a.MaxMemory < minMemory:
		return fmt.Errorf("max_memory is %d bytes, must be at least %d", a.MaxMemory, minMemory)
	case a.MaxConnections < 0:
		return fmt.Errorf("max_connections is %d, must not be negative", a.MaxConnections)
	case a.ShutdownDelay < 0 || time.Duration(a.ShutdownDelay) > 10*time.Minute:
		return fmt.Errorf("shutdown_delay is %s, must be 0 to 10m", time.Duration(a.ShutdownDelay))
	case a.MaxChannels < 0:
		return fmt.Errorf("max_channels is %d, must not be negative", a.MaxChannels)
	}
	return nil
}

// Start applies the options. This configuration may yet be refused, so until the one before it stops nothing that is
// kept is dropped.
func (a *App) Start() error {
	o := a.options()
	if before := active(); before != nil {
		o = keeping(o, before.options())
	}
	a.hub.Configure(o)
	return nil
}

// Stop has the hub go on with the options of the configuration that goes on: the next one's, or, if that was refused
// when this app had started, the one before.
func (a *App) Stop() error {
	if next := active(); next != nil {
		next.hub.Configure(next.options())
	}
	return nil
}

// active returns the running configuration's app, if it has one.
func active() *App {
	app, err := caddy.ActiveContext().AppIfConfigured("broadcast")
	if err != nil {
		return nil
	}
	return app.(*App)
}

func (a *App) options() hub.Options {
	return hub.Options{
		Coalesce:       time.Duration(a.Coalesce),
		MaxConnections: a.MaxConnections,
		MaxChannels:    a.MaxChannels,
		MaxMemory:      a.MaxMemory,
		History:        a.History,
		HistoryAge:     time.Duration(a.HistoryMaxAge),
		HistoryBytes:   int(cmp.Or(a.HistoryBytes, hub.DefaultHistoryBytes)),
	}
}

// keeping returns options with the more generous bounds of the two for what is kept.
func keeping(o, before hub.Options) hub.Options {
	o.History = max(o.History, before.History)
	o.HistoryBytes = max(o.HistoryBytes, before.HistoryBytes)
	if o.HistoryAge = max(o.HistoryAge, before.HistoryAge); before.HistoryAge == 0 {
		o.HistoryAge = 0
	}
	if o.MaxMemory = max(o.MaxMemory, before.MaxMemory); before.MaxMemory == 0 {
		o.MaxMemory = 0
	}
	return o
}

// Cleanup lets go of the hub. The last one closes it, and every connection with code 1012 (service restart).
func (a *App) Cleanup() error {
	if a.release == nil {
		return nil
	}
	return a.release()
}

// serverStops is called when a server stops: on a reload too, which the connections outlive. When the process exits
// they have to end before Cleanup, for the server waits for those inside HTTP/2 and 3.
func (a *App) serverStops() {
	if caddy.Exiting() {
		a.hub.Close(closeCode, closeText, time.Duration(a.ShutdownDelay), closeTimeout)
	}
}

// Engine returns the hub, for the packages of this module.
func (a *App) Engine() *hub.Hub { return a.hub }

// Context returns the app's context, for the events that come from it.
func (a *App) Context() caddy.Context { return a.ctx }

// Handler is an HTTP handler that makes a route a live channel. A WebSocket handshake subscribes to the route's
// channels, and what the client then sends is published on the first of them; a GET that accepts text/event-stream
// subscribes as an event stream (HTML Standard, section 9.2); a POST publishes its body, or the field
// data of a form. Two POSTs of the same `user` with the same Idempotency-Key on a channel within two minutes are
// published once and answered alike, or the second is answered 422 if it says something else. Any other request goes
// to the next handler.
//
// A message is sent as one WebSocket frame, text or binary as it was published, with nothing added; to a client that
// asks for the subprotocol broadcast.v1, as JSON with its ID, channel and event. A connection gets all messages of its
// channels, once, in the one order that all messages have; or it is closed with a code that says why: 1002, 1003 or 1007
// what it sent was wrong, 1008 it may not publish, 1009 its message was too big, 1012 the server restarts, 1013 it was
// too slow (RFC 6455, section 7.4). Event streams, by Last-Event-ID, and broadcast.v1, by `?last_id=`, resume after the
// last message that they have, as far as `history` of the app `broadcast` keeps what came since, and else are told of
// the gap. Connections stay through config reloads, with the options they came in with.
//
// Who may subscribe and publish, and to what, is said with matchers, authentication and placeholders around and in
// the route. A refused request is answered by a line of text that says why, unless the server has error routes for it.
type Handler struct {
	// The channels of the route; placeholders are expanded for each request. A request for which one of them is
	// empty, longer than 255 bytes, not UTF-8 or has a control character is answered 400. Default: `default`.
	Channels []string `json:"channels,omitempty"`

	// Who the client is, such as `{http.auth.user.id}`. A request for which that is longer than 255 bytes, not UTF-8 or has
	// a control character is answered 400. Default: nobody.
	User string `json:"user,omitempty"`

	// Whether clients of this route may publish. If not, a POST is answered 403, and a WebSocket that sends a message
	// is closed with 1008. Default: `true`.
	Publish *bool `json:"publish,omitempty"`

	// Whether clients of this route get messages. Default: `true`.
	Subscribe *bool `json:"subscribe,omitempty"`

	// Channels that clients of the subprotocol `broadcast.v1` may join themselves; `*` stands for any text, placeholders
	// are expanded, and what they stand for is taken as it is: `room:*`, `user:{http.auth.user.id}:*`. Where users' names
	// may contain the separator, here a colon, take another one: the user `ann` may join what belongs to `ann:bob`. Default:
	// none but those of the route.
	Join []string `json:"join,omitempty"`

	// What requests the route takes: `websocket`, `sse` (event streams), `post`. Default: all of them, for which the
	// route has to have a matcher other than the site's: it would take every POST of the site.
	Transports []string `json:"transports,omitempty"`

	// Names of query parameters that other handlers of the route use, such as a token. A POST with a parameter that is not
	// among these, not `channel` or `event`, and in no placeholder of these options, is answered 400, for it may be a
	// misspelled destination. Default: none.
	Query []string `json:"query,omitempty"`

	// Which pages of other origins may use the route: `https://app.example.com`, `app.example.com` for any scheme,
	// `*.example.com` for all hosts below one, `null` for sandboxed pages and files, `*` for all. A port that is not
	// the scheme's own has to be given. Others are answered 403. Pages of the same host always may, and so may clients
	// that are no browsers: they send neither an Origin header nor Sec-Fetch-Site. Default: none.
	Origins []string `json:"origins,omitempty"`

	// Whether a WebSocket gets the messages that it has sent itself. Default: `true`.
	Echo *bool `json:"echo,omitempty"`

	// A text that is sent to each new WebSocket before anything else, unless it speaks `broadcast.v1`; placeholders are
	// expanded. Default: none.
	Greeting string `json:"greeting,omitempty"`

	// How many of the last messages of its channels together a new subscriber gets first, as far as they are kept, see
	// `history` of the app `broadcast`, and fit `max_backlog`. It hides nothing: whoever may subscribe may read all that
	// is kept, by asking for it. Default: `0`.
	Replay int `json:"replay,omitempty"`

	// How often a connection is pinged, in whole seconds. One that has sent nothing, not even a pong, for two
	// intervals is cut off. Default: `25s`. Minimum: `1s`. Maximum: `1h`.
	PingInterval caddy.Duration `json:"ping_interval,omitempty"`

	// How long a client may take none of what it is sent before it is closed with 1013, and how long the close may
	// take. Default: `10s`.
	WriteTimeout caddy.Duration `json:"write_timeout,omitempty"`

	// The size in bytes of the longest message that a client may publish, after decompression. A longer one is
	// answered 413, a WebSocket closed with 1009. Default: `65536` (64 KiB). Maximum: `67108864` (64 MiB).
	MaxMessage int64 `json:"max_message,omitempty"`

	// How many bytes may wait for a connection that takes messages more slowly than they come, and as many again of what
	// is replayed to it; resuming further back than that is a gap. What is replayed counts with about 200 bytes a message,
	// and as large as it is in the form that takes most: base64, escapes in JSON, or the lines of an event stream. Default: `1048576` (1 MiB). Minimum: `65536` (64 KiB),
	// and not less than `max_message`.
	MaxBacklog int64 `json:"max_backlog,omitempty"`

	// What happens to a connection whose backlog is full: `close` closes it with 1013, `drop` drops its oldest
	// messages, of which it is told by a gap if it speaks `broadcast.v1` or is an event stream. Default: `close`.
	Slow string `json:"slow,omitempty"`

	// How many messages a client may publish: a WebSocket, with `broadcast.v1` its joins, leaves and empty arrays too, and for both
	// their pings, pongs and empty parts of messages as far as these are more than 10 and then one a second; or by POST
	// a `user`, or an address if there is no user. Too many are answered 429 with Retry-After; with
	// `broadcast.v1` by the error `rate`, and after 20 of those in a row the WebSocket is closed with 1008, as a raw one is
	// at once. Default: no limit.
	Rate *Rate `json:"rate,omitempty"`

	// How many connections the route may have at once. Further ones are answered 503 with Retry-After. Routes with the
	// same channels are counted together, and connections through reloads. Default: `0`, no limit.
	MaxConnections int `json:"max_connections,omitempty"`

	// How many of them may come from one address: the client's as Caddy knows it, see `trusted_proxies`. Connections are
	// counted that have come since there is such a limit. Default: `0`, no limit.
	MaxPerIP int `json:"max_per_ip,omitempty"`

	// How many leading bits of an IPv6 address `rate` and `max_per_ip` look at: all addresses with these bits in common
	// count as one, since whoever has one of them usually has them all. Default: `64`.
	IPv6Prefix int `json:"ipv6_prefix,omitempty"`

	// Offers permessage-deflate (RFC 7692), without context takeover. A message is deflated once for all. Default:
	// off.
	Compression *Compression `json:"compression,omitempty"`

	// Closes the route's connections with 1012 when the configuration is reloaded, so that they come back with the new
	// one's options. A handshake that is under way is refused. Default: `false`, they stay.
	CloseOnReload bool `json:"close_on_reload,omitempty"`

	sockets      websocket.Route
	streams      eventstream.Route
	origins      []origin.Pattern
	join         []websocket.JoinPattern
	posters      *rates.Clients
	query        []string // parameters that a POST may have besides those of a message
	ownQuery     bool     // the parameter channel is a part of the route's channels
	route        string   // what its connections count for
	errors       *httperror.Responder
	takesSockets bool
	takesStreams bool
	takesPosts   bool
	emitter      *events.Emitter
	logger       *zap.Logger
}

// Compression configures permessage-deflate.
type Compression struct {
	// The size in bytes from which a message is deflated. Default: `256`.
	MinSize int `json:"min_size,omitempty"`
}

// Rate is a token bucket.
type Rate struct {
	// How many messages, in the time of `per`.
	Messages int `json:"messages,omitempty"`

	// The time. Default: `1s`.
	Per caddy.Duration `json:"per,omitempty"`

	// How many may come at once. Default: as many as `messages`.
	Burst int `json:"burst,omitempty"`
}

func (r *Rate) limit() rates.Limit {
	if r == nil {
		return rates.Limit{}
	}
	per := cmp.Or(time.Duration(r.Per), time.Second)
	return rates.Limit{PerSecond: float64(r.Messages) / per.Seconds(), Burst: cmp.Or(r.Burst, r.Messages)}
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.broadcast", New: func() caddy.Module { return new(Handler) }}
}

// The transports.
const (
	transportWebSocket   = "websocket"
	transportEventStream = "sse"
	transportPost        = "post"
)

var transports = []string{transportWebSocket, transportEventStream, transportPost}

// Limits of the options.
const (
	minPingInterval   = time.Second
	maxPingInterval   = time.Hour
	maxMessage        = 64 << 20
	defaultMinDeflate = 256
)

// Provision sets up the handler.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	if err := h.checkPlace(ctx); err != nil {
		return err
	}
	h.setDefaults()
	app, err := ctx.App("broadcast")
	if err != nil {
		return err
	}
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterOnShutdown(app.(*App).serverStops)
	}
	for _, s := range h.Origins {
		p, err := origin.Parse(s)
		if err != nil {
			return err
		}
		h.origins = append(h.origins, p)
	}
	for _, s := range h.Join {
		h.join = append(h.join, websocket.ParseJoin(s))
	}
	h.takesSockets = slices.Contains(h.Transports, transportWebSocket)
	h.takesStreams = slices.Contains(h.Transports, transportEventStream)
	h.takesPosts = slices.Contains(h.Transports, transportPost)
	a := app.(*App)
	h.emitter = a.emitter
	h.sockets = websocket.Route{
		Hub:        a.hub,
		Raw:        websocket.Options{Plain: h.connOptions(transportWebSocket, wire.Raw{})},
		V1:         websocket.Options{Plain: h.connOptions(transportWebSocket, wire.V1{})},
		MaxMessage: int(h.MaxMessage),
		Rate:       h.Rate.limit(),
		NoEcho:     !*h.Echo,
		Poller:     a.poller,
	}
	if h.Compression != nil {
		h.sockets.Raw.Deflated = h.connOptions(transportWebSocket, wire.Raw{MinDeflate: h.Compression.MinSize})
		h.sockets.V1.Deflated = h.connOptions(transportWebSocket, wire.V1{MinDeflate: h.Compression.MinSize})
	}
	h.streams = eventstream.Route{Hub: a.hub, Options: h.connOptions(transportEventStream, wire.EventStream{}), Poller: a.poller}
	h.streams.V1 = h.connOptions(transportEventStream, wire.V1Stream{})
	h.streams.Options.OneWay, h.streams.V1.OneWay = true, true
	h.posters = rates.NewClients(h.Rate.limit())
	h.route = strings.Join(h.Channels, "\x00")
	h.errors = httperror.For(h)
	own := h.placeholders()
	h.ownQuery = slices.Contains(own, "channel")
	h.query = slices.Concat(h.Query, own, []string{"join", "last_id"})
	h.warn()
	return nil
}

// checkPlace refuses a route that would take every POST of its site, such as a login, and publish it: of a directive
// without a matcher that is rarely meant. And it warns of a route that no request reaches.
func (h *Handler) checkPlace(ctx caddy.Context) error {
	place, ok := placement.Of(ctx)
	if !ok {
		return nil
	}
	if len(h.Transports) == 0 && !place.Restricted() {
		path := "/ws"
		if len(h.Channels) > 0 && !strings.ContainsAny(h.Channels[0], "{/: ") {
			path = "/" + h.Channels[0]
		}
		does := "publishes"
		if h.Publish != nil && !*h.Publish {
			does = "refuses"
		}
		return fmt.Errorf(`without a path this route takes every POST of its site, and %s it: `+
			`write "broadcast %s", put it into "handle %[2]s { … }", or list the transports that it is for`, does, path)
	}
	if paths := place.RewrittenBefore(); len(paths) > 0 {
		path := paths[0]
		if !strings.HasPrefix(path, "/") { // a regular expression
			path = "@…"
		}
		h.logger.Warn(fmt.Sprintf("no request reaches this route: try_files comes first, and rewrites %s to a file; "+
			`write "handle %s { broadcast }", and put try_files, and file_server, into a "handle { … }" of their own`, strings.Join(paths, " "), path),
			zap.Strings("channels", h.Channels))
	}
	sockets := len(h.Transports) == 0 || slices.Contains(h.Transports, transportWebSocket)
	if _, again := warned.Load("auth of " + strings.Join(h.Channels, "\x00")); sockets && !again && place.AuthGetsUpgrade() {
		warned.Store("auth of "+strings.Join(h.Channels, "\x00"), true)
		h.logger.Warn("forward_auth passes WebSocket handshakes on as such, and some backends refuse them, such as Flask's: "+
			`write "header_up -Upgrade" and "header_up -Connection" into forward_auth`, zap.Strings("channels", h.Channels))
	}
	return nil
}

// placeholders returns the names of the query parameters that the options expand.
func (h *Handler) placeholders() (names []string) {
	for _, text := range slices.Concat(h.Channels, h.Join, []string{h.User, h.Greeting}) {
		for _, after := range strings.Split(text, queryPlaceholder)[1:] {
			if name, _, ok := strings.Cut(after, "}"); ok {
				names = append(names, name)
			}
		}
	}
	return names
}

const queryPlaceholder = "{http.request.uri.query."

// warned are the routes that were warned of: a reload is no news.
var warned sync.Map

// warn tells of options that are rarely meant.
func (h *Handler) warn() {
	if !slices.Contains(h.Origins, "*") || !*h.Publish {
		return
	}
	if _, again := warned.LoadOrStore(h.route, true); !again {
		h.logger.Warn("any page that a visitor looks at may publish here as that visitor: name the origins, or set publish off",
			zap.Strings("origins", h.Origins), zap.Strings("channels", h.Channels))
	}
}

func (h *Handler) connOptions(transport string, f hub.Format) *hub.ConnOptions {
	return &hub.ConnOptions{
		Transport:    transport,
		Format:       f,
		PingInterval: time.Duration(h.PingInterval),
		WriteTimeout: time.Duration(h.WriteTimeout),
		MaxBacklog:   int(h.MaxBacklog),
		DropOldest:   h.Slow == "drop",
		Observer:     observer{h.logger, events.Observer{Emitter: h.emitter}},
	}
}

// observer logs and emits what becomes of connections.
type observer struct {
	logger *zap.Logger
	events.Observer
}

// Ended logs why a connection has ended.
func (o observer) Ended(conn *hub.Conn, why hub.Reason) {
	o.Observer.Ended(conn, why)
	if entry := o.logger.Check(zapcore.DebugLevel, "closed"); entry != nil {
		c := conn.Describe()
		entry.Write(zap.Uint64("connection", c.ID), zap.String("reason", why.String()), zap.String("remote", c.Remote),
			zap.String("transport", c.Transport), zap.String("user", c.User), zap.Duration("duration", time.Since(c.Since)),
			zap.Uint64("sent", c.Sent))
	}
}

// Cleanup closes the route's connections, if that is wanted. They are of a configuration that is gone. Requests may
// still be on their way here, as Caddy does not wait for them: a handshake among them is refused, and comes back to
// the new configuration. A POST among them is published by the permissions that it was received with.
func (h *Handler) Cleanup() error {
	if h.CloseOnReload && h.sockets.Hub != nil {
		var options []*hub.ConnOptions
		for _, o := range []*hub.ConnOptions{h.sockets.Raw.Plain, h.sockets.Raw.Deflated, h.sockets.V1.Plain, h.sockets.V1.Deflated, h.streams.Options, h.streams.V1} {
			if o != nil {
				options = append(options, o)
			}
		}
		h.sockets.Hub.Retire(options, closeCode, closeText)
	}
	return nil
}

func (h *Handler) setDefaults() {
	on := func(p **bool) {
		if *p == nil {
			*p = new(bool)
			**p = true
		}
	}
	on(&h.Publish)
	on(&h.Subscribe)
	on(&h.Echo)
	if len(h.Channels) == 0 {
		h.Channels = []string{DefaultChannel}
	}
	if len(h.Transports) == 0 {
		h.Transports = transports
	}
	if h.PingInterval == 0 {
		h.PingInterval = caddy.Duration(25 * time.Second)
	}
	if h.WriteTimeout == 0 {
		h.WriteTimeout = caddy.Duration(10 * time.Second)
	}
	if h.MaxMessage == 0 {
		h.MaxMessage = 64 << 10
	}
	if h.MaxBacklog == 0 {
		h.MaxBacklog = max(1<<20, h.MaxMessage)
	}
	if h.IPv6Prefix == 0 {
		h.IPv6Prefix = rates.DefaultIPv6Prefix
	}
	if h.Slow == "" {
		h.Slow = "close"
	}
	if h.Compression != nil && h.Compression.MinSize == 0 {
		h.Compression.MinSize = defaultMinDeflate
	}
}

// Validate checks the options.
func (h *Handler) Validate() error {
	for i, name := range h.Channels {
		if slices.Contains(h.Channels[:i], name) {
			return fmt.Errorf("channel %q is named twice", name)
		}
		if !strings.Contains(name, "{") {
			if err := hub.CheckName(name); err != nil {
				return fmt.Errorf("channel %q %w", name, err)
			}
		}
	}
	for i, t := range h.Transports {
		if !slices.Contains(transports, t) {
			return fmt.Errorf("transport %q is not one of %s", t, strings.Join(transports, ", "))
		}
		if slices.Contains(h.Transports[:i], t) {
			return fmt.Errorf("transport %q is named twice", t)
		}
	}
	for _, s := range h.Origins {
		if _, err := origin.Parse(s); err != nil {
			return err
		}
	}
	switch {
	case !*h.Publish && !*h.Subscribe:
		return errors.New("publish and subscribe are both off, so the route can do nothing")
	case !*h.Publish && len(h.Transports) == 1 && h.Transports[0] == transportPost:
		return errors.New("publish is off and the only transport is post, so the route can do nothing")
	case !*h.Subscribe && len(h.Transports) == 1 && h.Transports[0] == transportEventStream:
		return errors.New("subscribe is off and the only transport is sse, so the route can do nothing")
	case !*h.Subscribe && len(h.Join) > 0:
		return errors.New("subscribe is off, so there is nobody who could join")
	case h.Replay < 0:
		return fmt.Errorf("replay is %d, must not be negative", h.Replay)
	case h.Replay > 0 && !*h.Subscribe:
		return errors.New("subscribe is off, so there is nobody to replay to")
	case time.Duration(h.PingInterval) < minPingInterval || time.Duration(h.PingInterval) > maxPingInterval:
		return fmt.Errorf("ping_interval is %s, must be 1s to 1h", time.Duration(h.PingInterval))
	case time.Duration(h.PingInterval)%time.Second != 0:
		return fmt.Errorf("ping_interval is %s, must be whole seconds", time.Duration(h.PingInterval))
	case h.WriteTimeout < 0:
		return fmt.Errorf("write_timeout is %s, must not be negative", time.Duration(h.WriteTimeout))
	case h.MaxMessage < 0 || h.MaxMessage > maxMessage:
		return fmt.Errorf("max_message is %d bytes, must be 1 to %d", h.MaxMessage, maxMessage)
	case h.MaxBacklog < hub.MinBacklog:
		return fmt.Errorf("max_backlog is %d bytes, must be at least %d", h.MaxBacklog, hub.MinBacklog)
	case h.MaxBacklog < h.MaxMessage:
		return fmt.Errorf("max_backlog is %d bytes, less than the %d of max_message", h.MaxBacklog, h.MaxMessage)
	case h.Slow != "close" && h.Slow != "drop":
		return fmt.Errorf("slow is %q, must be close or drop", h.Slow)
	case h.Rate != nil && (h.Rate.Messages < 1 || h.Rate.Per < 0 || h.Rate.Burst < 0):
		return errors.New("rate: messages must be at least 1, per and burst not negative")
	case h.Rate != nil && !*h.Publish:
		return errors.New("publish is off, so there is no rate to limit")
	case h.MaxConnections < 0:
		return fmt.Errorf("max_connections is %d, must not be negative", h.MaxConnections)
	case h.MaxPerIP < 0:
		return fmt.Errorf("max_connections per_ip is %d, must not be negative", h.MaxPerIP)
	case h.IPv6Prefix < 1 || h.IPv6Prefix > 128:
		return fmt.Errorf("ipv6_prefix is %d, must be 1 to 128", h.IPv6Prefix)
	case h.Compression != nil && h.Compression.MinSize < 0:
		return fmt.Errorf("compression's min_size is %d, must not be negative", h.Compression.MinSize)
	}
	return nil
}

// ServeHTTP takes WebSocket handshakes, event streams and POSTs, and serves the client for browsers.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	var take taker
	preflight := false
	switch {
	case websocket.IsUpgrade(r):
		if h.takesSockets {
			take = h.acceptSocket
		}
	case r.Method == http.MethodPost:
		if h.takesPosts {
			take = h.post
		}
	case eventstream.Wants(r):
		if h.takesStreams {
			take = h.acceptStream
		}
	case client.Wants(r):
		return client.Serve(w, r)
	case client.Asks(r):
		if h.takesSockets || h.takesStreams {
			take = h.admit
		}
	default:
		preflight = origin.IsPreflight(r) && (h.takesPosts || h.takesStreams) && len(h.origins) > 0
	}
	if take == nil && !preflight {
		return next.ServeHTTP(w, r)
	}
	err := h.answer(w, r, preflight, take)
	if err != nil {
		if entry := h.logger.Check(zapcore.DebugLevel, "refused"); entry != nil {
			entry.Write(zap.Error(err), zap.String("remote", r.RemoteAddr))
		}
		err = h.errors.Respond(w, r, err)
	}
	return err
}

// taker answers a request of one kind.
type taker func(http.ResponseWriter, *http.Request, *caddy.Replacer, string, []string) error

// answer answers a preflight, or checks a request and has it taken.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, preflight bool, take taker) error {
	refuse := func(status int, err error) error {
		if r.ProtoMajor == 1 && websocket.IsUpgrade(r) { // as Accept does
			w.Header().Set("Connection", "close")
		}
		return caddyhttp.Error(status, err)
	}
	verdict := origin.Check(r, h.origins)
	if verdict != origin.Named && origin.HostChanged(r) {
		h.warnOfHost(r)
	}
	if verdict == origin.Refused {
		h.sockets.Hub.Refused(hub.RefusedOrigin)
		return refuse(http.StatusForbidden, refusedOrigin(r))
	}
	if len(h.origins) > 0 {
		verdict.Allow(w.Header(), r)
	}
	if preflight {
		w.Header().Set("Access-Control-Allow-Methods", "GET, POST")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization, Content-Type, Idempotency-Key, Last-Event-ID")
		w.Header().Set("Access-Control-Max-Age", "600")
		w.WriteHeader(http.StatusNoContent)
		return nil
	}
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	channels, err := h.expandChannels(repl)
	if err != nil {
		return refuse(http.StatusBadRequest, err)
	}
	user := repl.ReplaceAll(h.User, "")
	if user != "" {
		if err := hub.CheckName(user); err != nil {
			return refuse(http.StatusBadRequest, fmt.Errorf("the user %w", err))
		}
	}
	return take(w, r, repl, user, channels)
}

// admit answers a client that asks whether it may connect. It may: it got this far.
func (h *Handler) admit(w http.ResponseWriter, _ *http.Request, _ *caddy.Replacer, _ string, _ []string) error {
	return client.Admit(w)
}

func refusedOrigin(r *http.Request) error {
	from := r.Header.Get("Origin")
	if from == "" {
		return errors.New("a page of another site may not use this route, and says no origin that the option origins could name")
	}
	return fmt.Errorf("a page of origin %q may not use this route of the host %q: name the origin in the option origins, "+
		"or if a proxy in front changes the Host header, have it pass Host on", from, r.Host)
}

// warnOfHost tells once of a proxy in front that changes the Host header: browsers name the page's origin with a
// WebSocket, and nothing else that would say that it is our own.
func (h *Handler) warnOfHost(r *http.Request) {
	if _, again := warned.LoadOrStore("host of "+h.route, true); !again {
		h.logger.Warn("a proxy in front seems to change the Host header, so pages of this site are refused as another's: "+
			"have it pass Host on, or name the site in the option origins",
			zap.String("origin", r.Header.Get("Origin")), zap.String("host", r.Host), zap.Strings("channels", h.Channels))
	}
}

// acceptSocket takes a WebSocket handshake.
func (h *Handler) acceptSocket(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, user string, channels []string) error {
	c := websocket.Client{Subscriber: h.subscriber(r, user, channels)}
	if text := strings.ToValidUTF8(repl.ReplaceAll(h.Greeting, ""), "\uFFFD"); text != "" {
		c.First = wire.TextFrame(text)
	}
	if *h.Publish {
		c.Publish = channels
	}
	c.MayJoin, c.Join = h.mayJoin(repl), asksFor(r)
	c.Connected = func() { h.connected(r, transportWebSocket, c.Subscriber) }
	return h.sockets.Accept(w, r, c)
}

// acceptStream takes a request for an event stream.
func (h *Handler) acceptStream(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, user string, channels []string) error {
	if !*h.Subscribe {
		return caddyhttp.Error(http.StatusForbidden, errors.New("subscribing is off on this route"))
	}
	s := h.subscriber(r, user, channels)
	connected := func() { h.connected(r, transportEventStream, s) }
	if eventstream.WantsV1(r) {
		var errs []byte
		s.Channels, errs = websocket.Grant(channels, asksFor(r), h.mayJoin(repl))
		return h.streams.AcceptV1(w, r, s, errs, connected)
	}
	return h.streams.Accept(w, r, s, connected)
}

// asksFor returns the channels that a client of broadcast.v1 wants to join from the beginning.
func asksFor(r *http.Request) []string { return r.URL.Query()["join"] }

// mayJoin returns which channels a client may join.
func (h *Handler) mayJoin(repl *caddy.Replacer) func(string) bool {
	if len(h.join) == 0 || !*h.Subscribe {
		return nil
	}
	patterns := make([]websocket.JoinPattern, len(h.join))
	for i, p := range h.join {
		patterns[i] = p.Expand(func(s string) (string, error) { return repl.ReplaceOrErr(s, true, true) })
	}
	return func(channel string) bool {
		return slices.ContainsFunc(patterns, func(p websocket.JoinPattern) bool { return p.Matches(channel) })
	}
}

func (h *Handler) connected(r *http.Request, transport string, s hub.Subscriber) {
	if entry := h.logger.Check(zapcore.DebugLevel, "connected"); entry != nil {
		entry.Write(zap.String("remote", r.RemoteAddr), zap.String("transport", transport), zap.Int("http", r.ProtoMajor),
			zap.Strings("channels", s.Channels), zap.String("user", s.User))
	}
}

// expandChannels returns the request's channels, each once.
func (h *Handler) expandChannels(repl *caddy.Replacer) ([]string, error) {
	channels := make([]string, 0, len(h.Channels))
	for _, pattern := range h.Channels {
		name := repl.ReplaceAll(pattern, "")
		if err := hub.CheckName(name); err != nil {
			return nil, fmt.Errorf("the channel %q %w", pattern, err)
		}
		if !slices.Contains(channels, name) {
			channels = append(channels, name)
		}
	}
	return channels, nil
}

func (h *Handler) subscriber(r *http.Request, user string, channels []string) hub.Subscriber {
	s := hub.Subscriber{
		User:           user,
		Remote:         remoteOf(r),
		Route:          h.route,
		MaxConnections: h.MaxConnections,
		MaxPerRemote:   h.MaxPerIP,
	}
	if h.MaxPerIP > 0 {
		s.Network = cmp.Or(rates.Address(s.Remote, h.IPv6Prefix), "unknown")
	}
	if *h.Subscribe {
		s.Channels, s.Replay, s.LastID = channels, h.Replay, eventstream.LastID(r)
	}
	return s
}

// remoteOf returns the client's address, as Caddy knows it: behind trusted proxies that is not the connection's.
func remoteOf(r *http.Request) string {
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok && ip != "" {
		return strings.Clone(ip)
	}
	return strings.Clone(r.RemoteAddr)
}

// wait counts a message of a client without a connection, and returns how long it has to wait. A name that looks like
// an address is not counted for that.
func (h *Handler) wait(r *http.Request, user string) time.Duration {
	if h.posters == nil {
		return 0
	}
	if user != "" {
		return h.posters.Wait("user " + user)
	}
	return h.posters.Wait(rates.Address(remoteOf(r), h.IPv6Prefix))
}

// post publishes the body of a request.
func (h *Handler) post(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, user string, channels []string) error {
	if eventstream.WantsV1(r) {
		return h.postV1(w, r, repl, user, channels)
	}
	if !*h.Publish {
		return caddyhttp.Error(http.StatusForbidden, errors.New("publishing is off on this route"))
	}
	if wait := h.wait(r, user); wait > 0 {
		h.sockets.Hub.Refused(hub.RefusedRate)
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		return caddyhttp.Error(http.StatusTooManyRequests, errors.New("the client publishes faster than the option rate lets it"))
	}
	m, err := post.Message(w, r, h.MaxMessage, h.query...)
	if err == nil {
		m.Source = transportPost
		m.Publisher, m.Owner = post.Client(user), post.Owner(user, remoteOf(r))
		own := slices.Contains(channels, m.Channel)
		if m.Channel == "" || !own && h.ownQuery && m.Channel == r.URL.Query().Get("channel") {
			m.Channel = channels[0]
		}
		if !slices.Contains(channels, m.Channel) {
			err = &post.Error{Status: http.StatusForbidden, Err: fmt.Errorf("%q is not a channel of this route", m.Channel)}
		}
	}
	if err == nil {
		if err = h.sockets.Hub.Publish(m); err != nil {
			err = post.Refused(w, err)
		}
	}
	if err != nil {
		if refusal := new(post.Error); errors.As(err, &refusal) {
			return caddyhttp.Error(refusal.Status, refusal.Err)
		}
		return caddyhttp.Error(http.StatusInternalServerError, err)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	return json.NewEncoder(w).Encode(struct {
		ID string `json:"id"`
	}{m.ID()})
}

// postV1 is post for a client of broadcast.v1, whose stream cannot carry what it has to say.
func (h *Handler) postV1(w http.ResponseWriter, r *http.Request, repl *caddy.Replacer, user string, channels []string) error {
	for _, name := range []string{"channel", "event"} {
		if r.URL.Query().Has(name) && !slices.Contains(h.query, name) {
			return caddyhttp.Error(http.StatusBadRequest, fmt.Errorf("the query names a %s: with broadcast.v1 a message names it in the body", name))
		}
	}
	frame, err := post.Body(w, r, h.sockets.MaxBody())
	if refusal := new(post.Error); errors.As(err, &refusal) {
		return caddyhttp.Error(refusal.Status, refusal.Err)
	}
	c := websocket.Client{Subscriber: hub.Subscriber{User: user, Remote: remoteOf(r)}, MayJoin: h.mayJoin(repl)}
	if *h.Publish {
		c.Publish = channels
	}
	answers := h.sockets.Post(frame, c, func() bool { return h.wait(r, user) > 0 })
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, err = w.Write(answers)
	return err
}

// Interface guards
var (
	_ caddy.App                   = (*App)(nil)
	_ caddy.Provisioner           = (*App)(nil)
	_ caddy.Validator             = (*App)(nil)
	_ caddy.CleanerUpper          = (*App)(nil)
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
