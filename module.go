package broadcast

import (
	"cmp"
	"fmt"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
	_ "github.com/caddy-broadcast/caddy-broadcast/internal/admin"
	"github.com/caddy-broadcast/caddy-broadcast/internal/backend"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokered"
	_ "github.com/caddy-broadcast/caddy-broadcast/internal/command"
	_ "github.com/caddy-broadcast/caddy-broadcast/internal/health"
	"github.com/caddy-broadcast/caddy-broadcast/internal/historyfile"
	"github.com/caddy-broadcast/caddy-broadcast/internal/httperror"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/logwriter"
	"github.com/caddy-broadcast/caddy-broadcast/internal/metrics"
	"github.com/caddy-broadcast/caddy-broadcast/internal/placement"
	"github.com/caddy-broadcast/caddy-broadcast/internal/pool"
	_ "github.com/caddy-broadcast/caddy-broadcast/internal/response"
	"github.com/caddy-broadcast/caddy-broadcast/internal/retention"
	"github.com/caddy-broadcast/caddy-broadcast/internal/route"
)

func init() {
	active.Register(func(app any) active.App {
		a := app.(*App)
		return active.App{Hub: a.hub, Context: a.ctx, Broker: a.shared.Broker, Survey: a.shared.Survey, Routes: a.routes}
	})
	caddy.RegisterModule(App{})
	caddy.RegisterModule(Handler{})
}

// App is the hub that all `broadcast` handlers of a Caddy process share, and with it every connection. It does not need to
// be configured: the first handler creates it. A config reload keeps the hub and all connections, and the new options apply
// at once.
type App struct {
	// How long to gather messages before they are written, so that more of them share one write. Set it, for example to
	// `5ms`, to save CPU time where many small messages go to many connections; each message is then delayed by up to
	// that long. At zero no message waits, but messages that arrive while others are being written still share the next
	// write. Default: `0`. Maximum: `1s`.
	Coalesce caddy.Duration `json:"coalesce,omitempty"`

	retention.Options

	// How many bytes may be queued for all connections, and be kept, together: backlogs, replays, history, messages that
	// clients have not finished sending, idempotency keys, and inboxes. Set it so that a flood of slow clients cannot take
	// all memory of the machine. From five eighths of the limit on, the connections that hold most are closed with 1013, as
	// long as they hold 64 KiB or more; then the oldest history is dropped; then connections that hold less are closed.
	// While the limit is reached, new connections and messages by HTTP get a 503. Bytes queued for several connections are
	// counted once. Default: `0`, no limit. Minimum: `1048576` (1 MiB).
	MaxMemory int64 `json:"max_memory,omitempty"`

	// How many connections there may be at once, over all routes. While the limit is reached, new connections get a 503
	// with Retry-After. Set it below the number of open files that the process may have, since Caddy needs some for other
	// requests. Default: `0`, no limit.
	MaxConnections int `json:"max_connections,omitempty"`

	// How many channels may have subscribers at once. Set it if clients can choose the names of channels, by a placeholder
	// or by `join`. While the limit is reached, a connection that would open one more channel gets a 503, and a join gets an
	// error. Default: `0`, no limit.
	MaxChannels int `json:"max_channels,omitempty"`

	// How long to spread the closing of connections over when the process exits, so that thousands of clients do not
	// reconnect to the next process at the same moment. New connections are rejected meanwhile. Caddy exits that much
	// later. Default: `0`. Maximum: `10m`.
	ShutdownDelay caddy.Duration `json:"shutdown_delay,omitempty"`

	brokered.Sharing

	// Where backends publish with the Redis protocol, as Socket.IO backends do: with Flask-SocketIO's `message_queue`,
	// `@socket.io/redis-emitter`, or any Redis client. Default: nowhere.
	Redis *backend.Redis `json:"redis,omitempty"`

	ctx     caddy.Context
	hub     *hub.Hub
	shared  pool.Shared  // the hub, and what else the configurations share
	release func() error // it, once
	broker  brokered.Settings

	file       historyfile.Settings
	redis      *backend.Settings
	closeRedis func() error // what it listens on
	namespaces []string     // of all routes, for Socket.IO
	routes     []placement.Description

	historyLine int // of the Caddyfile
}

// CaddyModule returns the Caddy module information.
func (App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "broadcast", New: func() caddy.Module { return new(App) }}
}

// Limits of the options.
const (
	minMemory        = 1 << 20 // room for a few backlogs that are not large
	maxCoalesce      = time.Second
	maxShutdownDelay = 10 * time.Minute
)

// closeText is what WebSockets are told when the configuration of their route ends.
const closeText = "service restart"

// Provision sets up the app.
func (a *App) Provision(ctx caddy.Context) error {
	// Options are applied by Start: until then this configuration may yet be refused.
	shared, release, err := pool.Acquire()
	if err != nil {
		return err
	}
	a.ctx, a.hub, a.shared, a.release = ctx, shared.Hub, *shared, release
	a.broker.Node, a.broker.PartitionTimeout = a.Node, a.Silence()
	if a.Broker != nil {
		if err := a.broker.Load(ctx.LoadModule(a, "Broker")); err != nil {
			return err
		}
	}
	if a.redis, err = a.Redis.Settings(); err != nil {
		return err
	}
	a.setUpFile()
	return metrics.Register(ctx.GetMetricsRegistry(), a.hub, shared.Broker.Cluster(), shared.Emitter, shared.Intake)
}

// Validate checks the options.
func (a *App) Validate() error {
	switch {
	case a.Coalesce < 0 || time.Duration(a.Coalesce) > maxCoalesce:
		return fmt.Errorf("coalesce is %s, must be 0 to 1s", time.Duration(a.Coalesce))
	case a.MaxMemory != 0 && a.MaxMemory < minMemory:
		return fmt.Errorf("max_memory is %d bytes, must be at least %d", a.MaxMemory, minMemory)
	case a.MaxConnections < 0:
		return fmt.Errorf("max_connections is %d, must not be negative", a.MaxConnections)
	case a.ShutdownDelay < 0 || time.Duration(a.ShutdownDelay) > maxShutdownDelay:
		return fmt.Errorf("shutdown_delay is %s, must be 0 to 10m", time.Duration(a.ShutdownDelay))
	case a.MaxChannels < 0:
		return fmt.Errorf("max_channels is %d, must not be negative", a.MaxChannels)
	}
	return cmp.Or(a.Options.Validate(), a.Sharing.Validate(), a.Redis.Validate(a.Broker != nil))
}

// Start applies the options. This configuration may yet be refused, so until the one before it stops nothing that is
// kept is dropped, and the broker stays.
func (a *App) Start() (err error) {
	a.redis.SetNamespaces(a.namespaces) // all handlers are provisioned
	if a.closeRedis, err = a.shared.Intake.Open(a.redis); err != nil {
		return fmt.Errorf("redis listen: %w", err)
	}
	a.hub.Start() // if no request was faster
	o := a.options()
	before := running()
	if before != nil {
		o = pool.Keeping(o, before.options())
	}
	a.hub.Configure(o)
	if before == nil {
		err = a.use()
	}
	logwriter.Use(a.hub)
	return err
}

// Stop has the hub go on with the options of the configuration that goes on: the next one's, or, if that was refused
// when this app had started, the one before.
func (a *App) Stop() error {
	next := running()
	if next == nil {
		return nil
	}
	next.hub.Configure(next.options())
	return next.use()
}

// use has what outlives configurations be connected as this one says.
func (a *App) use() error {
	err := a.shared.Broker.Use(&a.broker)
	a.shared.Intake.Use(a.redis)
	a.shared.File.Use(a.file)
	return err
}

// setUpFile has the first configuration of a process restore the history. That is done before the first message or connection,
// which may come before Start, and not here: the configuration may never start.
func (a *App) setUpFile() {
	if a.HistoryFile != nil && !*a.HistoryFile || a.Broker != nil || !a.Keeps() {
		if running() == nil {
			a.hub.StartWith(func() { historyfile.Discard(a.ctx.Storage()) })
		}
		return
	}
	if a.file.Storage = a.ctx.Storage(); running() == nil {
		a.hub.StartWith(func() {
			a.hub.Configure(a.options())
			a.shared.File.Restore(a.file)
		})
	}
}

// running returns the running configuration's app, or nil.
func running() *App {
	app, _ := active.Module().(*App)
	return app
}

func (a *App) options() hub.Config {
	return hub.Config{
		Coalesce:         time.Duration(a.Coalesce),
		MaxConnections:   a.MaxConnections,
		MaxChannels:      a.MaxChannels,
		MaxMemory:        a.MaxMemory,
		History:          a.History,
		HistoryAge:       time.Duration(a.HistoryMaxAge),
		Histories:        a.HistoryRules.Hub(),
		HistoryBytes:     int(cmp.Or(a.HistoryBytes, hub.DefaultHistoryBytes)),
		PartitionTimeout: a.Silence(),
	}
}

// Cleanup lets go of the hub. The last one closes it, and every connection with code 1012 (service restart).
func (a *App) Cleanup() error {
	if a.closeRedis != nil {
		a.closeRedis()
	}
	if a.release == nil {
		return nil
	}
	return a.release()
}

// serverStops is called when a server stops: on a reload too, which the connections outlive. Stop comes only when the
// requests of all servers have ended, so the next configuration's options are applied here. When the process exits the
// connections have to end before Cleanup, for the server waits for those inside HTTP/2 and 3.
func (a *App) serverStops() {
	if caddy.Exiting() {
		a.shared.Close(time.Duration(a.ShutdownDelay))
		return
	}
	a.Stop() // it logs its error
}

// Handler is an HTTP handler that makes a route a live channel:
//
//   - A WebSocket handshake subscribes to the route's channels. What the client then sends is published on the first of
//     them.
//   - A GET that accepts text/event-stream subscribes with an event stream (HTML Standard, section 9.2).
//   - A POST publishes its body, or the field `data` of a form. If the same `user` retries with the same Idempotency-Key on
//     the same channel within two minutes, the message is published once and both get the same response. A different
//     message with that key gets a 422.
//   - With `socketio`, the requests of Socket.IO clients, which poll or use WebSockets, subscribe and publish too.
//   - Any other request goes to the next handler.
//
// A message is sent as one WebSocket frame, text or binary as it was published, with nothing added. Clients that ask for
// the subprotocol `broadcast.v1` get it as JSON with its ID, channel and event.
//
// A connection gets each message of its channels exactly once, in the one order that all messages have, or it is closed
// with a code that says why (RFC 6455, section 7.4): 1002, 1003 or 1007 if it sent something invalid; 1008 if it may not
// publish or was too fast; 1009 if its message was too big; 4401 if its access has ended; 1012 if the server restarts; 1013 if it was too slow.
//
// Event streams, by Last-Event-ID, and clients of `broadcast.v1`, by `?last_id=`, resume after the last message that they
// have, as far back as `history` of the app `broadcast` goes. Otherwise they are notified of the gap.
//
// Connections survive config reloads, with the options that they connected with.
//
// Matchers, authentication and placeholders, around and in the route, decide who may subscribe and publish, and to what. A
// rejected request gets a line of text with the reason, unless the server has error routes for it.
type Handler struct {
	// The channels of the route. Placeholders are expanded for each request, so that for example `user:{http.auth.user.id}`
	// gives each user a channel. A request for which one of the names is empty, longer than 255 bytes, not UTF-8, or has
	// a control character gets a 400. Default: `default`.
	Channels []string `json:"channels,omitempty"`

	// Who the client is, such as `{http.auth.user.id}`. Set it to see users in lists and events, to close the connections of
	// one, and to have `rate` count by user instead of by address. A request whose user is longer than 255 bytes, not UTF-8,
	// or has a control character gets a 400. Default: nobody.
	User string `json:"user,omitempty"`

	// When a client's access ends, such as `{http.auth.user.exp}`: a Unix time in seconds, a time of RFC 3339, or `never`. Set
	// it where access is granted for a time, by a token or a session: otherwise a connection outlives it. At that time, or up
	// to a second later, a WebSocket is closed with 4401, and a stream ends. A request after that time gets a 401. One for
	// which it is empty or no such time gets a 400. Default: connections are not ended.
	Expires string `json:"expires,omitempty"`

	// Has the clients of the route know who else is on their channels: clients of `broadcast.v1`, event streams and Socket.IO
	// are told who is there, and then who comes and goes, at most once per second. A member is a user, or a connection without
	// a user, which is only counted. Above 1000 members only their number is sent. Default: off.
	Presence *Presence `json:"presence,omitempty"`

	// With `presence`, what the other members learn about a client besides its user. Either JSON, in which the values of
	// placeholders become parts of strings, such as `{"name": "{http.auth.user.name}"}`, or a placeholder whose value is a
	// text or a JSON object. Do not put anything in it that other clients must not know. A request for which it is not JSON
	// of at most 512 bytes gets a 400. Default: nothing.
	Member string `json:"member,omitempty"`

	// Whether clients of this route may publish. Turn it off where only the server has something to say. Then a POST gets a
	// 403, and a WebSocket that sends a message is closed with 1008. Default: `true`.
	Publish *bool `json:"publish,omitempty"`

	// Whether clients of this route receive messages. Turn it off for devices and scripts that only publish. Default:
	// `true`.
	Subscribe *bool `json:"subscribe,omitempty"`

	// Channels that clients of `broadcast.v1` and Socket.IO may join on their own; `*` matches any text. Placeholders
	// are expanded, and their values are matched literally: `room:*`, `user:{http.auth.user.id}:*`. If a value is empty, the
	// pattern matches nothing. If user names can contain the separator, here a colon, choose another one: otherwise the
	// user `ann` may join what belongs to `ann:bob`. Default: only the channels of the route.
	Join []string `json:"join,omitempty"`

	// Which requests the route accepts: `websocket`, `sse` (event streams), `post`, and with `socketio` also `polling`. Others go
	// to the next handler. Default: all of them. Then the route needs a matcher besides the site's, because it would accept every
	// POST of the site.
	Transports []string `json:"transports,omitempty"`

	// Names of query parameters that other handlers of the route use, such as a token. A POST with any other parameter gets
	// a 400, because it may be a misspelled destination. Always accepted are `channel`, `event`, and the parameters in
	// placeholders of these options. Default: none.
	Query []string `json:"query,omitempty"`

	// Pages of which other origins may use the route: `https://app.example.com`; `app.example.com` for any scheme;
	// `*.example.com` for all hosts below one; `null` for sandboxed pages and files; `*` for all. A port other than the
	// scheme's default must be given. Pages of other origins get a 403. Pages of the same host are always allowed, and so
	// are clients other than browsers, which send neither Origin nor Sec-Fetch-Site. Default: none.
	Origins []string `json:"origins,omitempty"`

	// Whether a WebSocket receives the messages that it sent itself. Turn it off if the page shows them at once anyway.
	// Default: `true`.
	Echo *bool `json:"echo,omitempty"`

	// A text that is sent to each new WebSocket before anything else, unless the client speaks `broadcast.v1`. Placeholders
	// are expanded, in JSON too: `{"user": "{http.auth.user.id}"}`. Use it to tell pages something about the server or the user.
	// Default: none.
	Greeting string `json:"greeting,omitempty"`

	// How many of the last messages of its channels together a new subscriber receives first, so that a page is not empty
	// until the next message. Only kept messages can be replayed (see `history` of the app `broadcast`), and only as many as
	// fit `max_backlog`. The option does not protect history: any client that may subscribe can read everything that is
	// kept by asking for it. Default: `0`.
	Replay int `json:"replay,omitempty"`

	// How often a connection is pinged, in whole seconds. A client that sends nothing for two intervals, not even a pong,
	// is disconnected. Choose it shorter than the idle timeout of any proxy or load balancer between. Default: `25s`.
	// Minimum: `1s`. Maximum: `1h`.
	PingInterval caddy.Duration `json:"ping_interval,omitempty"`

	// How long a client may accept no data before it is closed with 1013, and how long the close may take. A longer timeout
	// bears worse networks, and keeps the backlogs of dead clients in memory for longer. Default: `10s`.
	WriteTimeout caddy.Duration `json:"write_timeout,omitempty"`

	// The largest message that a client may publish, in bytes after decompression. A larger POST gets a 413, and a WebSocket
	// is closed with 1009. Default: `65536` (64 KiB). Maximum: `67108864` (64 MiB).
	MaxMessage int64 `json:"max_message,omitempty"`

	// How many bytes may be queued for one connection that accepts messages more slowly than they come, and the same again
	// for replay. Raise it for bursts that clients are slow to take; with it grows what each slow client can cost. A client
	// that resumes further back than this is notified of a gap. Each replayed message counts as about 200 bytes and its
	// size in the form that takes most: base64, escapes in JSON, or the lines of an event stream. Default: `1048576`
	// (1 MiB). Minimum: `65536` (64 KiB), and not less than `max_message`.
	MaxBacklog int64 `json:"max_backlog,omitempty"`

	// What happens to a connection whose backlog is full: `close` closes it with 1013; `drop` drops its oldest messages. Use
	// `drop` where only recent messages matter, such as prices or positions. Clients of `broadcast.v1` and event streams are
	// notified of the gap; raw WebSockets are not, because their protocol cannot express it. `conflate` is `close`, but of
	// the messages with one conflate key that wait for the connection only the newest is kept. Use it for tables, prices and
	// positions whose publishers set conflate keys: a slow client then has all current values, a little later. Default:
	// `close`.
	Slow string `json:"slow,omitempty"`

	// How long messages wait for others, to be delivered together. Of those with one conflate key only the newest is
	// delivered. Set it where clients are phones or many: each gets fewer frames, and messages come later by up to this
	// long. Answers do not wait, and no more than 64 KiB do. Default: `0`, which is not at all. Maximum: `10s`.
	DeliverEvery caddy.Duration `json:"deliver_every,omitempty"`

	route.Limits

	// Offers permessage-deflate (RFC 7692), without context takeover. Turn it on where bandwidth costs more than CPU time,
	// and messages are text of some length. A message is deflated once, however many clients receive it. Default: off.
	Compression *Compression `json:"compression,omitempty"`

	// Whether Socket.IO clients, v3 and later, may use the route, over WebSocket and by long polling. Their requests have the path
	// `/socket.io/` unless the page sets another one. Default: off.
	SocketIO *SocketIO `json:"socketio,omitempty"`

	// Closes the route's connections with 1012 when the configuration is reloaded, so that clients reconnect with the new
	// options, for example after permissions have changed. A handshake that is under way is rejected. Default: `false`,
	// connections survive reloads.
	CloseOnReload bool `json:"close_on_reload,omitempty"`

	route *route.Route
}

// Rate, Compression, Presence and SocketIO are options with options of their own.
type (
	Rate        = route.Rate
	Compression = route.Compression
	Presence    = route.Presence
	SocketIO    = route.SocketIO
)

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.broadcast", New: func() caddy.Module { return new(Handler) }}
}

// Provision compiles the options to a route.
func (h *Handler) Provision(ctx caddy.Context) error {
	description, err := route.CheckPlace(ctx, h.Channels, h.Transports, h.Publish == nil || *h.Publish)
	if err != nil {
		return err
	}
	module, err := ctx.App(active.Name)
	if err != nil {
		return err
	}
	app := module.(*App)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		server.RegisterOnShutdown(app.serverStops)
	}
	c := h.options(app.Keeps())
	c.SocketIOTable, c.PresenceTable = app.shared.SocketIO, app.shared.Presence
	if h.SocketIO != nil {
		app.namespaces = append(app.namespaces, h.SocketIO.Namespaces...)
	}
	c.Hub, c.Poller, c.Emitter = app.hub, app.shared.Poller, app.shared.Emitter
	if c.Publish {
		app.broker.MaxMessage = max(app.broker.MaxMessage, c.MaxMessage)
	}
	c.Errors, c.Logger = httperror.For(h), ctx.Logger()
	c.Describe(&description)
	app.routes = append(app.routes, description)
	h.route, err = route.New(c)
	return err
}

// options returns the options with their defaults, some of which depend on whether the app keeps messages.
func (h *Handler) options(history bool) route.Config {
	isOn := func(option *bool) bool { return option == nil || *option }
	c := route.Config{
		Channels: h.Channels, Join: h.Join, User: h.User, Expires: h.Expires, Member: h.Member, Presence: h.Presence, Greeting: h.Greeting,
		Transports: h.Transports, Query: h.Query, Origins: h.Origins,
		Publish: isOn(h.Publish), Subscribe: isOn(h.Subscribe), Echo: isOn(h.Echo), Replay: h.Replay,
		PingInterval: time.Duration(h.PingInterval), WriteTimeout: time.Duration(h.WriteTimeout),
		MaxMessage: h.MaxMessage, MaxBacklog: h.MaxBacklog, Slow: h.Slow, DeliverEvery: time.Duration(h.DeliverEvery), Compression: h.Compression,
		Limits:   h.Limits,
		SocketIO: h.SocketIO, History: history,
	}
	c.SetDefaults()
	return c
}

// Validate checks the options.
func (h *Handler) Validate() error { return h.options(false).Validate() }

// ServeHTTP serves WebSocket handshakes, event streams and POSTs, and the client for browsers.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	return h.route.ServeHTTP(w, r, next)
}

// Cleanup closes the route's connections, if close_on_reload is set. Requests may still be on their way here, because Caddy
// does not wait for them. A handshake among them is rejected, and the client reconnects to the new configuration. A POST
// among them is published with the permissions that it was received with.
func (h *Handler) Cleanup() error {
	if h.CloseOnReload && h.route != nil { // it is nil if Provision failed
		h.route.Retire(hub.ReasonRestart, closeText)
	}
	return nil
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
