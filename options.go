package broadcast

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/origin"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
	"github.com/caddy-broadcast/caddy-broadcast/internal/route"
)

// Compression configures permessage-deflate.
type Compression struct {
	// The size in bytes from which on a message is deflated. Smaller ones gain little: they have few repetitions, and mostly
	// fit one packet anyway. Default: `256`.
	MinSize int `json:"min_size,omitempty"`
}

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

// Rate is a token bucket.
type Rate struct {
	// How many messages are allowed in the time of `per`.
	Messages int `json:"messages,omitempty"`

	// The time. Choose a longer one, such as `1m`, for rates below one message per second. Default: `1s`.
	Per caddy.Duration `json:"per,omitempty"`

	// How many messages may come at once, after a pause. Default: as many as `messages`.
	Burst int `json:"burst,omitempty"`
}

func (r *Rate) validate() error {
	if r != nil && (r.Messages < 1 || r.Per < 0 || r.Burst < 0) {
		return errors.New("rate: messages must be at least 1, and per and burst must not be negative")
	}
	return nil
}

func (r *Rate) limit() ratelimit.Limit {
	if r == nil {
		return ratelimit.Limit{}
	}
	per := cmp.Or(time.Duration(r.Per), time.Second)
	return ratelimit.Limit{PerSecond: float64(r.Messages) / per.Seconds(), Burst: cmp.Or(r.Burst, r.Messages)}
}

// Defaults and limits of the options.
const (
	defaultPingInterval = caddy.Duration(25 * time.Second) // many proxies cut off what was silent for 30 s or 60 s
	defaultWriteTimeout = caddy.Duration(10 * time.Second)
	defaultMaxMessage   = 64 << 10
	defaultMaxBacklog   = 1 << 20
	defaultMinDeflate   = 256

	minPingInterval = time.Second // the resolution of the hub's keep-alive
	maxPingInterval = time.Hour
	maxMessage      = 64 << 20

	minMemory        = 1 << 20 // room for a few backlogs that are not large
	maxCoalesce      = time.Second
	maxShutdownDelay = 10 * time.Minute
)

// What happens to slow connections.
const (
	slowClose = "close"
	slowDrop  = "drop"
)

func (h *Handler) setDefaults() {
	on := true
	h.Publish = cmp.Or(h.Publish, &on)
	h.Subscribe = cmp.Or(h.Subscribe, &on)
	h.Echo = cmp.Or(h.Echo, &on)
	if len(h.Channels) == 0 {
		h.Channels = []string{DefaultChannel}
	}
	if len(h.Transports) == 0 {
		h.Transports = route.Transports
	}
	h.PingInterval = cmp.Or(h.PingInterval, defaultPingInterval)
	h.WriteTimeout = cmp.Or(h.WriteTimeout, defaultWriteTimeout)
	h.MaxMessage = cmp.Or(h.MaxMessage, defaultMaxMessage)
	h.MaxBacklog = cmp.Or(h.MaxBacklog, max(defaultMaxBacklog, h.MaxMessage))
	h.IPv6Prefix = cmp.Or(h.IPv6Prefix, ratelimit.DefaultIPv6Prefix)
	h.Slow = cmp.Or(h.Slow, slowClose)
}

// Validate checks the options.
func (h *Handler) Validate() error {
	for _, err := range []error{
		h.validateNames(), h.validateEffect(), h.validateBounds(), h.Rate.validate(), h.Compression.validate(),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) validateNames() error {
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
		if !slices.Contains(route.Transports, t) {
			return fmt.Errorf("transport %q is not one of %s", t, strings.Join(route.Transports, ", "))
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
	if h.Slow != slowClose && h.Slow != slowDrop {
		return fmt.Errorf("slow is %q, must be close or drop", h.Slow)
	}
	return nil
}

// validateEffect rejects options that together have no effect: somebody meant something else.
func (h *Handler) validateEffect() error {
	only := func(transport string) bool { return len(h.Transports) == 1 && h.Transports[0] == transport }
	switch {
	case !*h.Publish && !*h.Subscribe:
		return errors.New("publish and subscribe are both off, so the route can do nothing")
	case !*h.Publish && only(route.Post):
		return errors.New("publish is off and the only transport is post, so the route can do nothing")
	case !*h.Subscribe && only(route.EventStream):
		return errors.New("subscribe is off and the only transport is sse, so the route can do nothing")
	case !*h.Subscribe && len(h.Join) > 0:
		return errors.New("subscribe is off, so clients cannot join channels")
	case !*h.Subscribe && h.Replay > 0:
		return errors.New("subscribe is off, so nothing can be replayed")
	case !*h.Publish && h.Rate != nil:
		return errors.New("publish is off, so there is no rate to limit")
	}
	return nil
}

func (h *Handler) validateBounds() error {
	ping, timeout := time.Duration(h.PingInterval), time.Duration(h.WriteTimeout)
	switch {
	case h.Replay < 0:
		return fmt.Errorf("replay is %d, must not be negative", h.Replay)
	case ping < minPingInterval || ping > maxPingInterval:
		return fmt.Errorf("ping_interval is %s, must be 1s to 1h", ping)
	case ping%time.Second != 0:
		return fmt.Errorf("ping_interval is %s, must be whole seconds", ping)
	case timeout < 0:
		return fmt.Errorf("write_timeout is %s, must not be negative", timeout)
	case h.MaxMessage < 0 || h.MaxMessage > maxMessage:
		return fmt.Errorf("max_message is %d bytes, must be 1 to %d", h.MaxMessage, maxMessage)
	case h.MaxBacklog < hub.MinBacklog:
		return fmt.Errorf("max_backlog is %d bytes, must be at least %d", h.MaxBacklog, hub.MinBacklog)
	case h.MaxBacklog < h.MaxMessage:
		return fmt.Errorf("max_backlog is %d bytes, less than the %d of max_message", h.MaxBacklog, h.MaxMessage)
	case h.MaxConnections < 0:
		return fmt.Errorf("max_connections is %d, must not be negative", h.MaxConnections)
	case h.MaxPerIP < 0:
		return fmt.Errorf("max_connections per_ip is %d, must not be negative", h.MaxPerIP)
	case h.IPv6Prefix < 1 || h.IPv6Prefix > 128:
		return fmt.Errorf("ipv6_prefix is %d, must be 1 to 128", h.IPv6Prefix)
	}
	return nil
}

// Validate checks the options.
func (a *App) Validate() error {
	switch {
	case a.Coalesce < 0 || time.Duration(a.Coalesce) > maxCoalesce:
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
	case a.ShutdownDelay < 0 || time.Duration(a.ShutdownDelay) > maxShutdownDelay:
		return fmt.Errorf("shutdown_delay is %s, must be 0 to 10m", time.Duration(a.ShutdownDelay))
	case a.MaxChannels < 0:
		return fmt.Errorf("max_channels is %d, must not be negative", a.MaxChannels)
	}
	return nil
}
