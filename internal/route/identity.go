package route

import (
	"cmp"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/logwriter"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
)

// identity is who sends a request, and what the request's placeholders make of the route. It stays on the stack of the request:
// pass it on as a pointer, and keep none.
type identity struct {
	user     string // or ""
	member   string // what others may know of it
	remote   string // the client's address
	channels []string
	expires  time.Time       // when its access ends, if it does
	repl     *caddy.Replacer // only valid during the request
}

// identify expands the placeholders of the route's channels and user. A placeholder that is not known becomes empty, as in most
// of Caddy. The error errExpired is the client's; any other is the configuration's, or that of a bad request. Different placeholders may give the same name, which then counts once.
func (route *Route) identify(r *http.Request) (c identity, err error) {
	c = identity{remote: remoteOf(r), repl: r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)}
	// Of the request's own: they stay with the connection, while the route is shared.
	c.channels = make([]string, 0, len(route.channels))
	for _, pattern := range route.channels {
		name := c.repl.ReplaceAll(pattern, "")
		if hub.CheckName("", name) != nil { // the text for the error costs an allocation, so it is made only now
			return c, hub.CheckName(fmt.Sprintf("the channel %q", pattern), name)
		}
		if !slices.Contains(c.channels, name) {
			c.channels = append(c.channels, name)
		}
	}
	c.user = c.repl.ReplaceAll(route.user, "")
	// The empty name is nobody's, and is valid.
	if c.user != "" {
		if err := hub.CheckName("the user", c.user); err != nil {
			return c, err
		}
	}
	if c.expires, err = route.expiresOf(&c); err != nil {
		return c, err
	}
	c.member, err = route.memberOf(c.repl)
	return c, err
}

// remoteOf returns the client's address as Caddy determines it: behind trusted proxies that is not the connection's. It may be
// a part of the request's header, so what outlives the request needs a copy.
func remoteOf(r *http.Request) string {
	if ip, ok := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string); ok && ip != "" {
		return ip
	}
	return r.RemoteAddr
}

// subscriber returns what the hub has to know of a client that connects.
func (route *Route) subscriber(r *http.Request, c *identity) hub.Subscriber {
	// A copy, because all requests share the route's own.
	s := route.common
	s.User, s.Member, s.Remote, s.Expires = c.user, c.member, strings.Clone(c.remote), c.expires
	if s.MaxPerRemote > 0 {
		// An address that cannot be read, such as that of a Unix socket, is one network, so that the quota holds
		// there too.
		s.Network = cmp.Or(ratelimit.Address(c.remote, route.ipv6Prefix), "unknown")
		route.warnOfProxy(r)
	}
	if route.subscribe {
		s.Channels, s.LastID = c.channels, eventstream.LastID(r)
	}
	return s
}

// request returns what a client may do that connects as s, or that has no connection.
func (route *Route) request(r *http.Request, c *identity, s hub.Subscriber) *protocol.Request {
	// These are the route's own channels. Whether a client may publish on others, its protocol asks the connection.
	request := &protocol.Request{Subscriber: s, MayJoin: route.mayJoin(c), Query: r.URL.Query()}
	if route.publish {
		request.Publish = c.channels
	}
	return request
}

// mayJoin returns which channels a client may join in addition to the route's, or nil if none. Placeholders are expanded now,
// because the replacer is gone when the client joins, which may be hours later. Unlike in names, one that is empty or unknown
// makes its pattern match nothing: an anonymous client must not get what `user:{…}` gives to users.
func (route *Route) mayJoin(c *identity) func(channel string) bool {
	if len(route.join) == 0 || !route.subscribe {
		return nil
	}
	// The method outlives the request, so it refers to nothing of it but the expanded patterns.
	repl := c.repl // and not c, which then needs no place in the heap
	return route.join.Expand(func(s string) (string, error) { return repl.ReplaceOrErr(s, true, true) }).Matches
}

// markLogReader marks a request with which a client may read log entries, or publish next to them. The log writers do not publish
// what is logged about it: a client that polls would get that as the next message, for ever. What a session that polls is on is not
// known here, as a backend may have subscribed it to anything, so each of its requests is marked.
func (route *Route) markLogReader(r *http.Request, c *identity, session bool) {
	names := logwriter.Channels()
	if len(names) == 0 {
		return
	}
	mayJoin := route.mayJoin(c)
	for _, name := range names {
		if session || slices.Contains(c.channels, name) || mayJoin != nil && mayJoin(name) ||
			route.engine != nil && route.engine.MayConnect != nil && route.engine.MayConnect(name) {
			logwriter.Mark(r)
			return
		}
	}
}
