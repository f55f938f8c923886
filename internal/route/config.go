package route

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/events"
	"github.com/caddy-broadcast/caddy-broadcast/internal/httperror"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/origin"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
)

// Config is a handler's options, and what it shares with others. The module broadcast.Handler documents the options.
type Config struct {
	Hub     *hub.Hub
	Poller  *socket.Poller
	Emitter *events.Emitter
	Errors  *httperror.Responder
	Logger  *zap.Logger

	Channels, Join []string // with placeholders, as are the next two
	User, Greeting string
	Expires        string // with placeholders too
	Member         string
	Presence       *Presence // nil is off
	Transports     []string
	Query          []string
	Origins        []string

	Publish, Subscribe, Echo bool

	Replay       int
	PingInterval time.Duration
	WriteTimeout time.Duration
	MaxMessage   int64
	MaxBacklog   int64
	Slow         string
	DeliverEvery time.Duration
	Compression  *Compression

	SocketIO      *SocketIO       // nil is off
	SocketIOTable *socketio.Table // of the process
	PresenceTable *presence.Table // of the process
	History       bool            // the app keeps messages

	Limits
}

// Defaults and limits of the options.
// By default 16 of the largest messages fit a backlog. maxMessage bounds what a single client can have the server
// hold before anything is published.
const (
	defaultPingInterval = 25 * time.Second // many proxies cut off what was silent for 30 s or 60 s
	defaultWriteTimeout = 10 * time.Second
	defaultMaxMessage   = 64 << 10
	defaultMaxBacklog   = 1 << 20
	defaultMinDeflate   = 256

	minPingInterval = time.Second // the resolution of the hub's keep-alive
	maxPingInterval = time.Hour
	maxDeliverEvery = 10 * time.Second // less than a client waits before it takes a connection for dead
	maxMessage      = 64 << 20
)

// What happens to slow connections.
const (
	slowClose    = "close"
	slowDrop     = "drop"
	slowConflate = "conflate"
)

// SetDefaults sets the options that are not given.
func (c *Config) SetDefaults() {
	if len(c.Channels) == 0 {
		c.Channels = []string{hub.DefaultChannel}
	}
	if len(c.Transports) == 0 {
		c.Transports = slices.DeleteFunc(slices.Clone(Transports), func(t string) bool { return t == Polling && c.SocketIO == nil })
	}
	c.SocketIO = c.SocketIO.withDefaults(c.History)
	// Zero is an option that is not given, so none of these can be turned off with it.
	c.PingInterval = cmp.Or(c.PingInterval, defaultPingInterval)
	c.WriteTimeout = cmp.Or(c.WriteTimeout, defaultWriteTimeout)
	c.MaxMessage = cmp.Or(c.MaxMessage, defaultMaxMessage)
	// Raising max_message alone should not be an error that asks for max_backlog too.
	c.MaxBacklog = cmp.Or(c.MaxBacklog, max(defaultMaxBacklog, c.MaxMessage))
	c.IPv6Prefix = cmp.Or(c.IPv6Prefix, ratelimit.DefaultIPv6Prefix)
	c.Slow = cmp.Or(c.Slow, slowClose)
}

// Validate reports what is wrong with the options, which have their defaults. New takes only valid ones.
func (c Config) Validate() error {
	// The first error only, as Caddy shows one.
	for _, err := range []error{
		c.validateNames(), c.validateEffect(), c.validateBounds(), c.validatePresence(), c.Rate.validate(), c.Compression.validate(), c.validateSocketIO(),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// validateNames checks what the options name. What placeholders make of it is checked with each request: see
// identify.
func (c *Config) validateNames() error {
	for i, name := range c.Channels {
		// The hub relies on it: a connection is subscribed to a channel once (hub.Subscriber).
		if slices.Contains(c.Channels[:i], name) {
			return fmt.Errorf("channel %q is named twice", name)
		}
		// Placeholders are expanded with each request, and checked then.
		if !strings.Contains(name, "{") {
			if err := hub.CheckName(fmt.Sprintf("channel %q", name), name); err != nil {
				return err
			}
		}
	}
	for i, t := range c.Transports {
		if !slices.Contains(Transports, t) {
			return fmt.Errorf("transport %q is not one of %s", t, strings.Join(Transports, ", "))
		}
		if slices.Contains(c.Transports[:i], t) {
			return fmt.Errorf("transport %q is named twice", t)
		}
	}
	for _, s := range c.Origins {
		if _, err := origin.Parse(s); err != nil {
			return err
		}
	}
	if c.Expires != "" && !strings.Contains(c.Expires, "{") {
		return fmt.Errorf("expires is %q, must have a placeholder: a fixed time would end the access of all clients at once", c.Expires)
	}
	if c.Slow != slowClose && c.Slow != slowDrop && c.Slow != slowConflate {
		return fmt.Errorf("slow is %q, must be close, drop or conflate", c.Slow)
	}
	return nil
}

// validateEffect rejects options that together have no effect: somebody meant something else.
func (c *Config) validateEffect() error {
	only := func(transport string) bool { return len(c.Transports) == 1 && c.Transports[0] == transport }
	switch {
	case !c.Publish && !c.Subscribe:
		return errors.New("publish and subscribe are both off, so the route can do nothing")
	case !c.Publish && only(Post):
		return errors.New("publish is off and the only transport is post, so the route can do nothing")
	case !c.Subscribe && only(EventStream):
		return errors.New("subscribe is off and the only transport is sse, so the route can do nothing")
	case !c.Subscribe && len(c.Join) > 0:
		return errors.New("subscribe is off, so clients cannot join channels")
	case !c.Subscribe && c.Replay > 0:
		return errors.New("subscribe is off, so nothing can be replayed")
	case !c.Subscribe && c.DeliverEvery > 0:
		return errors.New("subscribe is off, so nothing is delivered")
	case !c.Publish && c.Rate != nil:
		return errors.New("publish is off, so there is no rate to limit")
	}
	return nil
}

// validateBounds checks the numbers. A zero is a limit that is off here, because SetDefaults has replaced those
// that stand for a default.
func (c *Config) validateBounds() error {
	ping, timeout := c.PingInterval, c.WriteTimeout
	switch {
	case c.Replay < 0:
		return fmt.Errorf("replay is %d, must not be negative", c.Replay)
	case ping < minPingInterval || ping > maxPingInterval:
		return fmt.Errorf("ping_interval is %s, must be 1s to 1h", ping)
	// The hub pings once per tick, and its ticks are seconds (see internal/hub/keepalive.go).
	case ping%time.Second != 0:
		return fmt.Errorf("ping_interval is %s, must be whole seconds", ping)
	case timeout < 0:
		return fmt.Errorf("write_timeout is %s, must not be negative", timeout)
	case c.DeliverEvery < 0 || c.DeliverEvery > maxDeliverEvery:
		return fmt.Errorf("deliver_every is %s, must be 0 to %s", c.DeliverEvery, maxDeliverEvery)
	case c.MaxMessage < 0 || c.MaxMessage > maxMessage:
		return fmt.Errorf("max_message is %d bytes, must be 1 to %d", c.MaxMessage, maxMessage)
	case c.MaxBacklog < hub.MinBacklog:
		return fmt.Errorf("max_backlog is %d bytes, must be at least %d", c.MaxBacklog, hub.MinBacklog)
	// One message has to fit, or every client that does not accept it at once would be closed.
	case c.MaxBacklog < c.MaxMessage:
		return fmt.Errorf("max_backlog is %d bytes, less than the %d of max_message", c.MaxBacklog, c.MaxMessage)
	case c.MaxConnections < 0:
		return fmt.Errorf("max_connections is %d, must not be negative", c.MaxConnections)
	case c.MaxPerIP < 0:
		return fmt.Errorf("max_connections per_ip is %d, must not be negative", c.MaxPerIP)
	case c.IPv6Prefix < 1 || c.IPv6Prefix > 128:
		return fmt.Errorf("ipv6_prefix is %d, must be 1 to 128", c.IPv6Prefix)
	}
	return nil
}

// Compression configures permessage-deflate.
type Compression struct {
	// The size in bytes from which on a message is deflated. Smaller ones gain little: they have few repetitions, and mostly
	// fit one packet anyway. Default: `256`.
	MinSize int `json:"min_size,omitempty"`
}

// validate may be called on nil, which is an option that is not given.
func (c *Compression) validate() error {
	if c != nil && c.MinSize < 0 {
		return fmt.Errorf("compression's min_size is %d, must not be negative", c.MinSize)
	}
	return nil
}

// minSize returns the size from which on messages are deflated, or 0 if none are.
func (c *Compression) minSize() int {
	if c == nil {
		return 0
	}
	return cmp.Or(c.MinSize, defaultMinDeflate)
}
