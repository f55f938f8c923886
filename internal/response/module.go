// Package response has the handler broadcast_response, which publishes what other handlers respond.
package response

import (
	"errors"
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/option"
	"github.com/caddy-broadcast/caddy-broadcast/internal/route"
)

func init() {
	caddy.RegisterModule(Handler{})
	httpcaddyfile.RegisterHandlerDirective("broadcast_response", parse)
	// It wraps responses as these do, and it has to come before whatever responds.
	httpcaddyfile.RegisterDirectiveOrder("broadcast_response", httpcaddyfile.After, "intercept")
}

const (
	defaultMaxMessage = 64 << 10 // as for what clients publish
	mostMaxMessage    = 64 << 20
)

// Handler is an HTTP handler that publishes the responses of the handlers after it, so that an application broadcasts what it
// answers without knowing of the hub:
//
//   - Requests that change something are published, and not GET, HEAD, OPTIONS and TRACE. Use a matcher to choose among them.
//   - The status must be 2xx, and the body must not be empty.
//   - What `broadcast` itself responds is not published.
//   - The body is one message: JSON if the Content-Type says so, otherwise text, or binary data if it is not UTF-8.
//
// The client gets the response as it would without this handler. The message is published when the response is complete. If the
// client disconnects before that, the response is not published, though the application may have done its work. Where no
// message may be missing, have the application publish to the admin API.
//
// To have responses that are not compressed, it removes Accept-Encoding from the request.
type Handler struct {
	// The channel to publish on. Placeholders are expanded after the response, so it can depend on that:
	// `{http.reverse_proxy.header.X-Channel}`. If it is empty then, nothing is published. Required.
	Channel string `json:"channel,omitempty"`

	// The event of the message. Placeholders are expanded. Default: none.
	Event string `json:"event,omitempty"`

	// The largest body that is published, in bytes. A larger one is only logged. Default: `65536` (64 KiB). Maximum:
	// `67108864` (64 MiB).
	MaxMessage int64 `json:"max_message,omitempty"`

	hub    *hub.Hub
	logger *zap.Logger
}

// CaddyModule returns the Caddy module information.
func (Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers.broadcast_response", New: func() caddy.Module { return new(Handler) }}
}

// Provision sets up the handler.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.MaxMessage == 0 {
		h.MaxMessage = defaultMaxMessage
	}
	app, err := active.In(ctx)
	h.hub, h.logger = app.Hub, ctx.Logger()
	return err
}

// Validate checks the options.
func (h *Handler) Validate() error {
	if h.Channel == "" {
		return errors.New("no channel is given to publish responses on")
	}
	// In JSON, 0 is the default.
	if h.MaxMessage < 0 || h.MaxMessage > mostMaxMessage {
		return fmt.Errorf("max_message is %d bytes, must be 1 to %d", h.MaxMessage, mostMaxMessage)
	}
	return nil
}

func parse(helper httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h := new(Handler)
	return h, h.UnmarshalCaddyfile(helper.Dispenser)
}

// UnmarshalCaddyfile sets up the handler from the directive:
//
//	broadcast_response [<matcher>] <channel> [<event>] {
//	    max_message <size>
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next()
	start := d.Token() // the directive's name
	if !d.Args(&h.Channel) {
		return d.Err("broadcast_response needs the channel to publish on")
	}
	if d.NextArg() {
		h.Event = d.Val()
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	if err := option.Block(d, map[string]option.Parser{"max_message": option.Size(&h.MaxMessage)}); err != nil {
		return err
	}
	return option.At(start, h.Validate())
}

// ServeHTTP has the other handlers respond, and publishes the response.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodConnect:
		return next.ServeHTTP(w, r)
	}
	// A copy, because the access log has the client's header. The handler encode, which is before this one, has read it.
	identity := *r
	identity.Header = r.Header.Clone()
	identity.Header.Del("Accept-Encoding")
	rec := &recorder{ResponseWriter: w, limit: int(h.MaxMessage)}
	if err := next.ServeHTTP(rec, &identity); err != nil {
		return err
	}
	served := caddyhttp.GetVar(r.Context(), route.ServedVar) != nil // the response tells its client what became of a message
	if rec.status != 0 && rec.size > 0 && !served {
		h.publish(r, rec)
	}
	return nil
}

// publish publishes a response. Its client has it already, so failures are only logged.
func (h *Handler) publish(r *http.Request, rec *recorder) {
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	channel := repl.ReplaceAll(h.Channel, "")
	if channel == "" {
		return
	}
	done := func(err error) {
		if err != nil {
			h.logger.Warn("a response was not published", zap.String("channel", channel), zap.Error(err))
		}
	}
	kind, err := rec.check()
	if err != nil {
		done(err)
		return
	}
	// It does not wait for a broker, because the client's response ends when this returns.
	h.hub.PublishAsync(&hub.Message{
		Channel: channel, Event: repl.ReplaceAll(h.Event, ""), Data: rec.body, Kind: kind, Source: hub.SourceResponse,
	}, done)
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
