package route

import (
	"errors"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

// acceptSocket connects a WebSocket.
func (route *Route) acceptSocket(w http.ResponseWriter, r *http.Request, c *identity) error {
	s := route.subscriber(r, c)
	request := websocket.Client{
		Subscriber: s,
		Publish:    route.mayPublish(c),
		MayJoin:    route.mayJoin(c),
		Join:       asksFor(r),
		Connected:  func() { route.logConnected(r, WebSocket, s) },
	}
	// A header in a placeholder may be any bytes, but a text frame has to be UTF-8 (RFC 6455, section 8.1).
	if text := strings.ToValidUTF8(c.repl.ReplaceAll(route.greeting, ""), "\uFFFD"); text != "" {
		request.First = wire.TextFrame(text)
	}
	return route.sockets.Accept(w, r, request)
}

// acceptStream connects an event stream.
func (route *Route) acceptStream(w http.ResponseWriter, r *http.Request, c *identity) error {
	if !route.subscribe {
		return caddyhttp.Error(http.StatusForbidden, errors.New("subscribing is off on this route"))
	}
	s := route.subscriber(r, c)
	connected := func() { route.logConnected(r, EventStream, s) }
	if eventstream.WantsV1(r) {
		var errs []byte
		s.Channels, errs = websocket.Grant(c.channels, asksFor(r), route.mayJoin(c))
		return route.streams.AcceptV1(w, r, s, errs, connected)
	}
	return route.streams.Accept(w, r, s, connected)
}

func (route *Route) logConnected(r *http.Request, transport string, s hub.Subscriber) {
	if entry := route.logger.Check(zapcore.DebugLevel, "connected"); entry != nil {
		entry.Write(zap.String("remote", r.RemoteAddr), zap.String("transport", transport), zap.Int("http", r.ProtoMajor),
			zap.Strings("channels", s.Channels), zap.String("user", s.User))
	}
}
