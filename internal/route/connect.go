package route

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// acceptSocket connects a WebSocket.
func (route *Route) acceptSocket(w http.ResponseWriter, r *http.Request, c *identity) error {
	request := route.request(r, c, route.subscriber(r, c))
	// A header in a placeholder may be any bytes, but a text frame has to be UTF-8 (RFC 6455, section 8.1).
	request.Greeting = strings.ToValidUTF8(c.repl.ReplaceAll(route.greeting, ""), "\uFFFD")
	return route.sockets.Accept(w, r, request, func() { route.logConnected(r, WebSocket, request.Subscriber) })
}

// acceptStream connects an event stream.
func (route *Route) acceptStream(w http.ResponseWriter, r *http.Request, c *identity) error {
	if !route.subscribe {
		// A WebSocket may still publish. A stream that receives nothing has no use.
		return caddyhttp.Error(http.StatusForbidden, errors.New("subscribing is off on this route"))
	}
	request := route.request(r, c, route.subscriber(r, c))
	return route.streams.Accept(w, r, request, func() { route.logConnected(r, EventStream, request.Subscriber) })
}

// logConnected logs a connection. It checks the level first, which is mostly off, because the fields are allocated.
func (route *Route) logConnected(r *http.Request, transport string, s hub.Subscriber) {
	if entry := route.logger.Check(zapcore.DebugLevel, "connected"); entry != nil {
		entry.Write(zap.String("remote", r.RemoteAddr), zap.String("transport", transport), zap.Int("http", r.ProtoMajor),
			zap.Strings("channels", s.Channels), zap.String("user", s.User))
	}
}
