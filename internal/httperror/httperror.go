// Package httperror tells a client why its request is rejected. Without it the client would get a bare status, because that
// is Caddy's response to an error unless the site has handle_errors.
package httperror

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Responder writes the responses for the errors of one handler.
type Responder struct {
	handler caddyhttp.MiddlewareHandler

	// The routes are searched at the first error and not while the handler is provisioned, because the routes after
	// it, and the error routes, are not all there yet.
	once     sync.Once
	found    bool                         // the handler, in the server's routes
	handlers []*caddyhttp.HTTPErrorConfig // that get its errors
}

// For returns the responder of a handler.
func For(h caddyhttp.MiddlewareHandler) *Responder { return &Responder{handler: h} }

// Respond responds to a rejected request and returns nil. The response is the status of err, which is a
// caddyhttp.HandlerError with a status from 400 to 499, 503 or 504, and a line with the reason. Respond returns err where the
// configuration handles the error itself, and for errors of the server, whose reasons only belong in the log.
func (p *Responder) Respond(w http.ResponseWriter, r *http.Request, err error) error {
	refused, ok := errors.AsType[caddyhttp.HandlerError](err)
	if !ok || refused.Err == nil {
		return err
	}
	// 503 is a limit of ours, or a broker that is away, that the client can do something about: wait. After a 504 it can try
	// again with the same key. Other errors from 500 on are faults of the server.
	if s := refused.StatusCode; (s < 400 || s > 499) && s != http.StatusServiceUnavailable && s != http.StatusGatewayTimeout {
		return err
	}
	if p.handled(r, refused) {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	h.Set("X-Content-Type-Options", "nosniff") // the line may quote the request
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(refused.StatusCode)
	io.WriteString(w, line(refused.Err)+"\n")
	return nil
}

// line returns an error's text as one line.
func line(err error) string {
	return strings.Map(func(r rune) rune {
		// The reason may quote what the client sent. A line break in it would look like a second line of ours.
		if r < ' ' || r == 0x7f {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(err.Error(), "\uFFFD"))
}

// handled reports whether an error that the handler returns is handled by the configuration, or may be.
func (p *Responder) handled(r *http.Request, err error) bool {
	server, ok := r.Context().Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	if !ok {
		return true
	}
	p.once.Do(func() { p.found = p.find(server, server.Routes, nil, 0) })
	if !p.found {
		return true // it is inside a handler that we do not know, which may handle its errors
	}
	// Error routes match the request as it came, before rewrites. The server restores it in the same way
	// (caddyhttp.Server.ServeHTTP).
	// Matchers may look at the error, through its placeholders.
	as := server.Errors.WithError(r, err)
	if before, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok {
		as.Method, as.RequestURI = before.Method, before.RequestURI
		u := *before.URL
		as.URL = &u
	}
	if server.Errors != nil && matches(server.Errors.Routes, as) {
		return true
	}
	for _, e := range p.handlers {
		if matches(e.Routes, r) {
			return true
		}
	}
	return false
}

// maxDepth ends the search where a named route invokes itself. Real configurations nest a few levels deep.
const maxDepth = 100

// find records which error routes are around the handler, and reports whether the handler is in the routes at all.
func (p *Responder) find(server *caddyhttp.Server, routes caddyhttp.RouteList, around []*caddyhttp.HTTPErrorConfig, depth int) (found bool) {
	if depth > maxDepth {
		return false
	}
	for _, route := range routes {
		for _, h := range route.Handlers {
			switch h := h.(type) {
			case *caddyhttp.Subroute:
				inside := around
				if h.Errors != nil {
					// The capacity is cut, so that each subroute gets an array of its own: the next one would
					// overwrite this one's.
					inside = append(around[:len(around):len(around)], h.Errors)
				}
				found = p.find(server, h.Routes, inside, depth+1) || found
			case *caddyhttp.Invoke:
				if named := server.NamedRoutes[h.Name]; named != nil {
					found = p.find(server, caddyhttp.RouteList{*named}, around, depth+1) || found
				}
			default:
				if h == p.handler {
					found = true
					p.handlers = append(p.handlers, around...)
				}
			}
		}
	}
	return found
}

// matches reports whether one of the routes handles the request.
func matches(routes caddyhttp.RouteList, r *http.Request) bool {
	for _, route := range routes {
		// A matcher that fails counts as one that matches. Then the error is returned, and Caddy sees the same
		// failure.
		if ok, err := route.MatcherSets.AnyMatchWithError(r); err == nil && !ok {
			continue
		}
		for _, h := range route.Handlers {
			// A subroute does nothing if none of its own routes matches. The Caddyfile adapter makes one of each
			// handle_errors.
			if sub, ok := h.(*caddyhttp.Subroute); !ok || matches(sub.Routes, r) {
				return true
			}
		}
	}
	return false
}
