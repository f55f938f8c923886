// Package admin is the hub's part of Caddy's admin API.
package admin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/internal/admin/ui"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/post"
)

func init() {
	caddy.RegisterModule(API{})
}

const (
	// maxMessage is the size in bytes of the longest message that the admin API publishes.
	maxMessage = 1 << 20

	// maxBody is the size in bytes of the longest body of messages, one a line, and maxLines is how many it may have.
	maxBody  = 16 << 20
	maxLines = 64 << 10

	defaultChannel = "default"
)

// API is the admin endpoint's module for the hub:
//
//   - `POST /broadcast/publish?channel=&event=` publishes the body, of 1 MiB at most, on the channel (default:
//     `default`), and answers `{"id":"…","channel":"…","subscribers":42}`. It is JSON if its Content-Type is
//     `application/json` or ends in `+json`, text if that is `text/*`, a form or absent, else binary. A form with the field
//     `data` is taken by its fields `channel`, `event` and `data`, and an `application/json` object with a `channel` by the
//     members that a line of `application/x-ndjson` has. A second message with the same `Idempotency-Key` header on
//     its channel within two minutes is not published: the answer is the first one's, or 422 if it says something else.
//     A message that names its channel in another way is answered 400: by an unknown parameter, field or member, an
//     empty channel, a channel without data, or a channel in both the query and the body.
//   - `POST /broadcast/publish` with `Content-Type: application/x-ndjson` publishes one
//     `{"channel":"…","event":"…","data":…}` a line, in order and with nothing in between, and answers a line each. A
//     string is published as text, anything else as JSON; `"encoding":"base64"` says that the string is binary data,
//     and `"key"` is the message's idempotency key.
//     If a line is wrong nothing is published: 400 names it. A query, or the header `Idempotency-Key`, is refused. The body may have 16 MiB and 65536 messages.
//   - `GET /broadcast` answers the hub's totals.
//   - `GET /broadcast/channels?prefix=` answers the channels that have subscribers or history, by name, and
//     `GET /broadcast/channels/{name}` one of them with its users.
//   - `GET /broadcast/connections?channel=&user=` answers the connections, the oldest first. Lists are answered 1000 at
//     a time, or `limit=`; the header `Link` says where they go on, with `after=`.
//   - `DELETE /broadcast/connections/{id}`, or `/broadcast/connections?user=`, closes connections with code 1008.
//   - `GET /broadcast/stream?channel=` is a live event stream of what is published on the channels named, or on all. The
//     data of each event is a frame of `broadcast.v1`.
//   - `GET /broadcast/ui/` is the inspector, a page that shows all of that. As Caddy 2.11 answers no browser that
//     navigates to the endpoint, unless its `origins` have an empty one beside its own, there is `caddy broadcast ui`.
//
// It holds no state: Caddy keeps the routers of old configurations.
type API struct{}

// CaddyModule returns the Caddy module information.
func (API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.broadcast", New: func() caddy.Module { return new(API) }}
}

// Routes returns the routes.
func (API) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/broadcast", Handler: handler(totals)},
		{Pattern: "/broadcast/publish", Handler: handler(publish)},
		{Pattern: "/broadcast/channels", Handler: handler(channels)},
		{Pattern: "/broadcast/channels/", Handler: handler(oneChannel)},
		{Pattern: "/broadcast/connections", Handler: handler(connections)},
		{Pattern: "/broadcast/connections/", Handler: handler(oneConnection)},
		{Pattern: "/broadcast/stream", Handler: handler(stream)},
		{Pattern: ui.Prefix, Handler: handler(ui.Serve)},
	}
}

// exposed bounds how often it is said that the admin endpoint is.
var exposed = rate.Sometimes{Interval: time.Hour}

// handler has a request answered, and warns if it came by an address that others can reach: who reaches it may do all
// that an administrator may. Caddy's remote admin endpoint, with TLS, knows its clients.
func handler(answer caddy.AdminHandlerFunc) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if ok && !addr.IP.IsLoopback() && r.TLS == nil {
			exposed.Do(func() {
				caddy.Log().Named("admin.api.broadcast").Warn(
					"the admin endpoint is reachable from elsewhere: who reaches it may publish to all, and read all; bind it to localhost or a unix socket",
					zap.Stringer("address", addr), zap.String("remote", r.RemoteAddr))
			})
		}
		return answer(w, r)
	}
}

// engine returns the running configuration's hub.
func engine() (*hub.Hub, error) {
	if caddy.ActiveContext().Context == nil { // the endpoint answers before the first configuration runs, and after the last
		return nil, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: errors.New("no configuration is running: Caddy starts, or stops")}
	}
	app, err := caddy.ActiveContext().AppIfConfigured("broadcast")
	if err == nil {
		if e, ok := app.(interface{ Engine() *hub.Hub }); ok && e.Engine() != nil {
			return e.Engine(), nil
		}
	}
	return nil, caddy.APIError{
		HTTPStatus: http.StatusNotFound,
		Err:        errors.New("nothing in the running configuration uses broadcast"),
	}
}

func allow(w http.ResponseWriter, r *http.Request, methods string) error {
	if r.Method == methods {
		return nil
	}
	w.Header().Set("Allow", methods)
	return caddy.APIError{
		HTTPStatus: http.StatusMethodNotAllowed,
		Err:        fmt.Errorf("method %s is not allowed, only %s", r.Method, methods),
	}
}

func totals(w http.ResponseWriter, r *http.Request) error {
	if err := allow(w, r, http.MethodGet); err != nil {
		return err
	}
	h, err := engine()
	if err != nil {
		return err
	}
	s := h.Stats()
	return answer(w, struct {
		Connections int     `json:"connections"`
		Channels    int     `json:"channels"`
		Seq         uint64  `json:"seq"`
		ID          string  `json:"id"`
		Messages    uint64  `json:"messages"`
		Bytes       uint64  `json:"bytes"`
		Deliveries  uint64  `json:"deliveries"`
		Delivered   uint64  `json:"delivered_bytes"`
		Writes      uint64  `json:"writes"`
		Backlog     int64   `json:"backlog"`
		History     int     `json:"history"`
		Kept        int     `json:"history_bytes"`
		Uptime      float64 `json:"uptime"` // seconds
	}{
		s.Connections, s.Channels, s.Seq, hub.FormatID(s.Epoch, s.Seq), s.Seq, s.Bytes, s.Deliveries, s.Written,
		s.Writes, s.Backlog, s.Kept, s.KeptBytes, time.Since(s.Started).Round(time.Millisecond).Seconds(),
	})
}

func publish(w http.ResponseWriter, r *http.Request) error {
	if err := allow(w, r, http.MethodPost); err != nil {
		return err
	}
	h, err := engine()
	if err != nil {
		return err
	}
	ms, lines, err := read(w, r)
	if err == nil {
		for _, m := range ms {
			m.Source = "admin"
		}
		err = h.Publish(ms...)
		if invalid := new(hub.InvalidError); lines != nil && errors.As(err, &invalid) {
			err = badLine(lines[invalid.Index], err)
		} else if err != nil {
			err = post.Refused(w, err)
		}
	}
	if err != nil {
		if refusal := new(post.Error); errors.As(err, &refusal) {
			return caddy.APIError{HTTPStatus: refusal.Status, Err: refusal.Err}
		}
		return err
	}
	type published struct {
		ID          string `json:"id"`
		Channel     string `json:"channel"`
		Subscribers int    `json:"subscribers"`
	}
	answers := make([]any, len(ms))
	for i, m := range ms {
		answers[i] = published{m.ID(), m.Channel, m.Subscribers}
	}
	return answer(w, answers...)
}

// read returns the messages of a request to publish, and their lines if it has them in lines.
func read(w http.ResponseWriter, r *http.Request) (ms []*hub.Message, lines []int, err error) {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "application/x-ndjson" {
		switch {
		case r.URL.RawQuery != "":
			return nil, nil, bad("the query %q: of several messages, each line names its own channel and event", r.URL.RawQuery)
		case r.Header.Get("Idempotency-Key") != "":
			return nil, nil, bad(`the header Idempotency-Key: of several messages, each line has its own "key"`)
		}
		body, err := post.Body(w, r, maxBody)
		if err != nil {
			return nil, nil, err
		}
		return parseLines(body)
	}
	m, err := post.Message(w, r, maxMessage)
	if err != nil {
		return nil, nil, err
	}
	m.Channel = cmp.Or(m.Channel, defaultChannel)
	return []*hub.Message{m}, nil, nil
}

// answer writes values, one a line.
func answer(w http.ResponseWriter, values ...any) error {
	w.Header().Set("Content-Type", "application/json")
	if len(values) != 1 {
		w.Header().Set("Content-Type", "application/x-ndjson")
	}
	e := json.NewEncoder(w)
	for _, v := range values {
		if err := e.Encode(v); err != nil {
			return err
		}
	}
	return nil
}

// Interface guards
var _ caddy.AdminRouter = (*API)(nil)
