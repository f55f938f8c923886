package placement

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// AuthGetsUpgrade reports whether a forward_auth before the handler passes a WebSocket handshake on as one. Its backend
// is only asked whether the request may pass, and some reject a handshake on a path that does not accept one
// (caddyserver/caddy#5430, where the maintainers suggest to remove the header).
func (p Place) AuthGetsUpgrade() bool {
	var paths []string
	for _, s := range p {
		paths = append(paths, pathsOf(s.routes[s.index])...)
	}
	for _, s := range p {
		for _, r := range s.routes[:s.index] {
			for _, h := range r.Handlers {
				if auth, ok := h.(*reverseproxy.Handler); ok && passesUpgrade(auth) && applies(r, paths) {
					return true
				}
			}
		}
		if authIn(s.routes[s.index].HandlersRaw) {
			return true
		}
	}
	return false
}

// authIn is AuthGetsUpgrade for the handlers of the route that is being provisioned: the Caddyfile adapter puts directives
// with one matcher together, and they are still in JSON.
func authIn(handlers []json.RawMessage) bool {
	for _, raw := range handlers {
		var module struct {
			Handler string `json:"handler"`
		}
		json.Unmarshal(raw, &module)
		switch module.Handler {
		case "broadcast", "subroute":
			return false // what comes later is not before us
		case "reverse_proxy":
			var auth reverseproxy.Handler
			if json.Unmarshal(raw, &auth) == nil && passesUpgrade(&auth) {
				return true
			}
		}
	}
	return false
}

// passesUpgrade reports whether a handler is what forward_auth makes, and leaves the header Upgrade in the request.
// forward_auth is not a module: it is a Caddyfile shortcut for a reverse_proxy that rewrites the request to a GET and handles
// the response.
func passesUpgrade(h *reverseproxy.Handler) bool {
	if h.Rewrite == nil || h.Rewrite.Method != http.MethodGet || len(h.HandleResponse) == 0 {
		return false
	}
	return h.Headers == nil || h.Headers.Request == nil ||
		!slices.ContainsFunc(h.Headers.Request.Delete, func(name string) bool { return strings.EqualFold(name, "Upgrade") })
}

// applies reports whether a route takes requests for one of the path patterns, as far as its matchers look at nothing
// else.
func applies(r caddyhttp.Route, patterns []string) bool {
	if len(r.MatcherSets) == 0 {
		return true
	}
	for _, set := range r.MatcherSets {
		// With a second matcher, such as a header, it depends on the request whether the route applies. Then nothing
		// is reported.
		if len(set) != 1 {
			continue
		}
		var own caddyhttp.MatchPath
		switch m := set[0].(type) {
		case caddyhttp.MatchPath:
			own = m
		case *caddyhttp.MatchPath:
			own = *m
		default:
			continue
		}
		for _, pattern := range patterns {
			if ok, err := own.MatchWithError(requestFor(pattern)); ok && err == nil {
				return true
			}
		}
	}
	return false
}

// requestFor returns a request for a path that the pattern matches. It needs a replacer, because MatchPath takes one from the
// context without checking that there is one.
func requestFor(pattern string) *http.Request {
	r := &http.Request{Method: http.MethodGet, URL: &url.URL{Path: strings.ReplaceAll(pattern, "*", "x")}, Header: http.Header{}}
	return r.WithContext(context.WithValue(context.Background(), caddy.ReplacerCtxKey, caddy.NewReplacer()))
}
