package route

import (
	"cmp"
	"errors"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
)

// Limits are the options of a route that limit its clients.
type Limits struct {
	// How many messages a client may publish. Set it where strangers may publish.
	//
	// - A WebSocket has its own count. With `broadcast.v1` it includes joins, leaves and empty arrays. With and without, it
	//   includes pings, pongs and empty parts of messages beyond the first 10 and then one per second.
	// - POSTs are counted by `user`, or by address if there is no user.
	//
	// A POST beyond the limit gets a 429 with Retry-After. A raw WebSocket is closed with 1008. With `broadcast.v1` each
	// request beyond the limit gets the error `rate`, and after 20 in a row the WebSocket is closed with 1008. Default: no
	// limit.
	Rate *Rate `json:"rate,omitempty"`

	// How many connections the route may have at once. While the limit is reached, new connections get a 503 with
	// Retry-After. Routes with the same channels are counted together, and connections are counted across reloads. Default:
	// `0`, no limit.
	MaxConnections int `json:"max_connections,omitempty"`

	// How many of them may come from one address: the client's as Caddy determines it (see `trusted_proxies`). Set it so
	// that one client cannot take all connections; remember that offices and mobile carriers share one address among many
	// people. Only connections made since the limit was set are counted. Default: `0`, no limit.
	MaxPerIP int `json:"max_per_ip,omitempty"`

	// How many leading bits of an IPv6 address `rate` and `max_per_ip` consider. All addresses with the same prefix count as
	// one, because a client that has one of them usually has them all. Choose it shorter, for example `56`, where providers
	// give each customer more. Default: `64`. Minimum: `1`. Maximum: `128`.
	IPv6Prefix int `json:"ipv6_prefix,omitempty"`
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

// validate may be called on nil, which is an option that is not given.
func (r *Rate) validate() error {
	if r != nil && (r.Messages < 1 || r.Per < 0 || r.Burst < 0) {
		return errors.New("rate: messages must be at least 1, and per and burst must not be negative")
	}
	return nil
}

// limit returns the zero Limit, which allows everything, if the option is not given.
func (r *Rate) limit() ratelimit.Limit {
	if r == nil {
		return ratelimit.Limit{}
	}
	per := cmp.Or(time.Duration(r.Per), time.Second)
	return ratelimit.Limit{PerSecond: float64(r.Messages) / per.Seconds(), Burst: cmp.Or(r.Burst, r.Messages)}
}
