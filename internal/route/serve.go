package route

import (
	"errors"
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-broadcast/caddy-broadcast/client"
	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/origin"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
	socketioscript "github.com/caddy-broadcast/caddy-broadcast/internal/socketio/script"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
)

// kind is what a request asks for.
type kind int

const (
	other        kind = iota // nothing that the route accepts: the next handler's
	handshake                // of a WebSocket
	stream                   // an event stream
	post                     // a message to publish
	script                   // the client for browsers, a file
	probe                    // a client of ours asks whether it may connect, as its failed WebSocket did not say
	engine                   // Socket.IO
	engineScript             // its client for browsers, which is another file
	preflight                // a browser asks whether a page may send one of the above
)

// ServedVar is the variable of a request that is set if a route responds to it, other than a GET. The handler broadcast_response
// publishes no such response.
const ServedVar = "broadcast.served"

// kindOf returns what a request asks for. The order matters: a handshake is a GET too, and may accept anything.
func (route *Route) kindOf(r *http.Request) kind {
	// A request by a transport that is off is not rejected but the next handler's, which may share the path.
	accepted := func(k kind, ok bool) kind {
		if !ok {
			return other
		}
		return k
	}
	switch {
	case route.engine != nil && socketio.Wants(r):
		return engine
	case websocket.IsRequest(r):
		return accepted(handshake, route.acceptsSockets)
	case r.Method == http.MethodPost:
		return accepted(post, route.acceptsPosts)
	case eventstream.IsRequest(r):
		return accepted(stream, route.acceptsStreams)
	// The client is served by every route, whatever its transports are, and to pages of any origin: it is a file
	// without secrets, and a page needs it before it can ask for anything else.
	case client.Wants(r):
		return script
	case route.engine != nil && socketioscript.Wants(r):
		return engineScript
	case client.Asks(r):
		return accepted(probe, route.acceptsSockets || route.acceptsStreams)
	case origin.IsPreflight(r):
		// Handshakes have no preflights, and without origins another site's page has nothing to ask for.
		return accepted(preflight, (route.acceptsPosts || route.acceptsStreams) && len(route.origins) > 0)
	}
	return other
}

// ServeHTTP serves WebSocket handshakes, event streams and POSTs, and the client for browsers. It passes all other
// requests on, so that a page and its route can have one path. Rejections are logged at debug level, because a stranger could
// fill the log with them. Those by a limit or an origin are counted in the metrics.
func (route *Route) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	k := route.kindOf(r)
	switch k {
	case other:
		return route.servePlain(w, r, next)
	case engineScript:
		return socketioscript.Serve(w, r)
	}
	if r.Method != http.MethodGet {
		caddyhttp.SetVar(r.Context(), ServedVar, true)
	}
	var err error
	switch k {
	case engine:
		err = route.serveEngine(w, r)
	case script:
		if err = client.Serve(w, r); err != nil {
			err = reject(w, r, http.StatusNotFound, err)
		}
	default:
		err = route.serve(w, r, k)
	}
	if err != nil {
		if entry := route.logger.Check(zapcore.DebugLevel, "rejected"); entry != nil {
			entry.Write(zap.Error(err), zap.String("remote", r.RemoteAddr))
		}
		err = route.errors.Respond(w, r, err)
	}
	return err
}

// serve serves a request that is the route's own. A wrong origin or name rejects it before anything is done for it.
func (route *Route) serve(w http.ResponseWriter, r *http.Request, k kind) error {
	// The origin comes first: a page that may not use the route learns nothing about it, not even what its channels
	// have to look like.
	if err := route.checkOrigin(w, r); err != nil {
		return reject(w, r, http.StatusForbidden, err)
	}
	if k == preflight {
		allowPreflight(w)
		return nil
	}
	c, err := route.identify(r)
	if err != nil {
		return reject(w, r, statusOf(err), err)
	}
	route.markLogReader(r, &c, false)
	switch k {
	case handshake:
		return route.acceptSocket(w, r, &c)
	case stream:
		return route.acceptStream(w, r, &c)
	case post:
		return route.servePost(w, r, &c)
	default: // probe: the client may connect, since it got this far
		return client.Admit(w)
	}
}

// statusOf returns the status of a request that identify has rejected.
func statusOf(err error) int {
	if errors.Is(err, errExpired) {
		return http.StatusUnauthorized
	}
	return http.StatusBadRequest
}

// reject returns the error that has a request answered with a status.
func reject(w http.ResponseWriter, r *http.Request, status int, err error) error {
	if r.ProtoMajor == 1 && websocket.IsRequest(r) {
		// The client may have sent frames after its handshake, which are not a request (see websocket.Accept).
		w.Header().Set("Connection", "close")
	}
	return caddyhttp.Error(status, err)
}
