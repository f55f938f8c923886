// Package health has the matcher by which a site tells load balancers whether this node should get clients.
package health

import (
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
)

func init() {
	caddy.RegisterModule(Matcher{})
}

// Problem is the placeholder that says why a request did not match.
const Problem = "broadcast.problem"

// Matcher matches all requests while this process should get clients of `broadcast`: always without a message broker; with
// one, from the first time that something comes from the broker until nothing has come for longer than `partition_timeout`.
// If a request does not match, the placeholder `{broadcast.problem}` says why. Use it for the health checks of a load
// balancer, which cannot reach the admin API:
//
//	handle /health {
//		@healthy broadcast_healthy
//		respond @healthy 200
//		respond "{broadcast.problem}" 503
//	}
type Matcher struct{}

// CaddyModule returns the Caddy module information.
func (Matcher) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.matchers.broadcast_healthy", New: func() caddy.Module { return new(Matcher) }}
}

// UnmarshalCaddyfile parses the matcher, which has no arguments.
func (*Matcher) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	for d.Next() {
		if d.NextArg() || d.NextBlock(0) {
			return d.ArgErr()
		}
	}
	return nil
}

// Match implements caddyhttp.RequestMatcher, which Caddy still asks matchers for.
func (m Matcher) Match(r *http.Request) bool {
	ok, _ := m.MatchWithError(r)
	return ok
}

// MatchWithError implements caddyhttp.RequestMatcherWithError.
func (Matcher) MatchWithError(r *http.Request) (bool, error) {
	app, err := active.Running()
	if err == nil {
		err = app.Broker.Health()
	}
	if err == nil {
		return true, nil
	}
	if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		repl.Set(Problem, err.Error())
	}
	return false, nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler             = (*Matcher)(nil)
	_ caddyhttp.RequestMatcherWithError = (*Matcher)(nil)
)
