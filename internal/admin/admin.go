// Package admin is the hub's part of Caddy's admin API.
package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"
	"golang.org/x/time/rate"

	"github.com/caddy-broadcast/caddy-broadcast/broker"
	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokered"
	"github.com/caddy-broadcast/caddy-broadcast/internal/buildinfo"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/inspector"
	"github.com/caddy-broadcast/caddy-broadcast/internal/nodes"
	"github.com/caddy-broadcast/caddy-broadcast/internal/placement"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
)

func init() {
	caddy.RegisterModule(API{})
}

const (
	// maxMessage is the size in bytes of the longest message that the admin API publishes.
	maxMessage = 1 << 20

	// maxBody is the size in bytes of the longest body of messages, one a line, and maxLines is how many it may have. All of
	// them are numbered under one hold of the hub's lock, so that nothing comes between them. If each has a key, maxLines
	// of them hold it for about 40 ms (BenchmarkKeyedBatch in internal/hub).
	maxBody  = 16 << 20
	maxLines = 64 << 10

	defaultChannel = hub.DefaultChannel
)

// API is the admin endpoint's module for the hub:
//
//   - `POST /broadcast/publish?channel=&event=` publishes the body, of at most 1 MiB, on the channel (default: `default`),
//     and returns `{"id":"…","channel":"…","subscribers":42}`. With a message broker, `subscribers` includes those of other
//     nodes. These may be two seconds old, and are left out if the broker does not tell them within 100 ms. The body is JSON if
//     its Content-Type is `application/json` or ends in `+json`; text if that is `text/*`, a form or absent; otherwise binary. A
//     form with the field `data` is a message with the fields `channel`, `event` and `data`. An `application/json` object with a
//     `channel` is a message with the members that a line of `application/x-ndjson` has. A second message with the same `Idempotency-Key` header on its channel
//     within two minutes is not published: it gets the response of the first, or a 422 if its content differs. A message that
//     names its channel in any other way gets a 400: by an unknown parameter, field or member, an empty channel, a channel
//     without data, or a channel in both the query and the body.
//   - `POST /broadcast/publish` with `Content-Type: application/x-ndjson` publishes one
//     `{"channel":"…","event":"…","data":…}` per line, in order and contiguously, and returns a line for each. A string is
//     published as text, anything else as JSON. `"encoding":"base64"` marks a string as binary data, and `"key"` is the
//     message's idempotency key. If a line is wrong, nothing is published, and the 400 names the line. A query, or the header
//     `Idempotency-Key`, is rejected. The body may have 16 MiB and 65536 messages. A message broker stores only some of them at
//     once (NATS: 1000, Redis: 256). If it fails after the first ones, the error has the number of those in `published`.
//   - `GET /broadcast` returns the hub's totals. They are those of this process: `messages` and `bytes` are what it has
//     published, and `clients` is `connections` without the event streams of this API. With a message broker, `broker` has its
//     state, and `nodes` lists the processes that share it, this one first. A node is `away` if it has been silent for six seconds (longer with more than 100 nodes) and was not shut down: it may be
//     cut off, and still have clients. It is listed for a minute, or for `partition_timeout` if that is longer.
//   - `GET /broadcast/health` returns 204 while this process should get clients. Otherwise it returns a 503 with the reason:
//     nothing has come from the broker for longer than `partition_timeout`, or nothing at all yet.
//   - `GET /broadcast/routes` lists the routes of the running configuration: the hosts and paths that lead there, as far as
//     matchers of these kinds say it, the channels and the most important options, and in `warnings` what Caddy has logged
//     about directives that hide the route.
//   - `GET /broadcast/channels?prefix=` lists the channels that have subscribers or history, by name, and
//     `GET /broadcast/channels/{name}` returns one of them with its users, and in `presence` with its members, as clients get them.
//   - `GET /broadcast/channels/{name}/messages?after=&limit=` returns the messages of a channel that are kept, the oldest first:
//     those after an ID, or with `?last` the newest. A page has at most 1000 messages, and about 4 MiB. With a message broker they
//     are read from it.
//   - `GET /broadcast/connections?channel=&user=` lists the connections, the oldest first, or with `?clients` those that are no
//     event streams of this API. If a connection's access ends, `expires` is the time when it does. Lists are paginated, 1000 entries per page (`limit=`). The `Link` header points to the next page, with `after=`.
//   - With a message broker, these lists cover all nodes that are alive, or with `?node=` those with this name or ID.
//     `subscribers` is the sum of all nodes, and `history` the largest number that one node has. Connections are sorted by node
//     and then by age. The ID of a connection begins with that of its node, as in `k3x9f2.c12`, and `node` is the node's name.
//     A node that does not answer within a second is left out. The header `Broadcast-Missing` names such nodes, encoded as in a
//     query and separated by `, `; one channel also has them in `missing`. A page may have fewer entries than its limit although
//     there is a next page, because no node sends more than 1000 entries or about 1 MiB at a time. One channel has as many users
//     of each node as fit in 1 MiB, and `more_users` if there are others.
//   - `DELETE /broadcast/connections/{id}`, or `/broadcast/connections?user=`, closes connections with code 1008, or with
//     that in `?code=`, from 4000 to 4999, and returns `{"closed":3}`. After a code from 4400 to 4499 clients of `broadcast.v1` do
//     not reconnect on their own. With a message broker, the request goes through the log to all nodes, and the response is
//     `{"closed":3,"nodes":2,"missing":["c"]}`: what was closed, by how many nodes, and the names of those that have not
//     answered. The status is 200, or 202 if some are missing: these do it when they have caught up, if that is within a
//     minute. It is 503 if the log cannot be reached: then only this node has done it. For an ID, only its own node is in
//     `nodes` or `missing`.
//   - `POST /broadcast/subscriptions` with `{"user":"ann","channel":"room:7"}`, or `{"connection":"c12","channel":"room:7"}`,
//     subscribes the connections of a user, or one connection, to a channel, and returns `{"subscribed":2}`. `DELETE` with the same
//     body unsubscribes them, and returns `{"unsubscribed":2}`. The channel may be one that the clients themselves may not join. It
//     concerns the connections that there are: one that comes back begins with the channels of its route. `failed` counts those
//     that could not be subscribed, because they are on 1000 channels, or because of `max_channels`; if there are no others, the
//     status is 503. A request that concerns no connection gets a 404. With a message broker, the request goes through the log to
//     all nodes, and the response also has `nodes` and `missing`, with the same meaning and statuses as for closing connections.
//     If the log cannot be reached, the status is 503, and nothing has changed.
//   - `GET /broadcast/stream?channel=` is a live event stream of the messages on the named channels, or on all channels. The data
//     of each event is a frame of `broadcast.v1`.
//   - `GET /broadcast/ui/` is the inspector, a page that shows all of this. Caddy 2.11 rejects browsers that navigate to the
//     endpoint, unless its `origins` also include an empty one. Hence the command `caddy broadcast ui`.
//
// It holds no state, because Caddy keeps the routers of old configurations.
type API struct{}

// CaddyModule returns the Caddy module information.
func (API) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "admin.api.broadcast", New: func() caddy.Module { return new(API) }}
}

// Routes returns the routes. A pattern that ends in a slash also gets the paths below it, because Caddy matches them with an
// http.ServeMux.
func (API) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{
		{Pattern: "/broadcast", Handler: handler(withApp(http.MethodGet, totals))},
		{Pattern: "/broadcast/health", Handler: handler(health)},
		{Pattern: "/broadcast/routes", Handler: handler(withApp(http.MethodGet, routes))},
		{Pattern: "/broadcast/publish", Handler: handler(withApp(http.MethodPost, publishAll))},
		{Pattern: "/broadcast/channels", Handler: handler(withApp(http.MethodGet, channels))},
		{Pattern: "/broadcast/channels/", Handler: handler(withApp(http.MethodGet, oneChannel))},
		{Pattern: "/broadcast/connections", Handler: handler(connections)},
		{Pattern: "/broadcast/connections/", Handler: handler(withApp(http.MethodDelete, oneConnection))},
		{Pattern: "/broadcast/subscriptions", Handler: handler(subscriptions)},
		{Pattern: "/broadcast/stream", Handler: handler(withApp(http.MethodGet, stream))},
		{Pattern: inspector.Prefix, Handler: handler(inspector.Serve)},
	}
}

// exposed bounds how often the log has the warning that the admin endpoint is exposed.
var exposed = rate.Sometimes{Interval: time.Hour}

// handler warns if a request came by an address that others can reach, because anyone who reaches the endpoint can do what an
// administrator can. It does not warn of Caddy's remote admin endpoint, which has TLS and authenticates its clients.
func handler(answer caddy.AdminHandlerFunc) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		// A Unix socket has no such address. The permissions of its file decide who reaches it.
		addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
		if ok && !addr.IP.IsLoopback() && r.TLS == nil {
			exposed.Do(func() {
				caddy.Log().Named("admin.api.broadcast").Warn(
					"the admin endpoint is reachable from elsewhere: anyone who reaches it can publish to and read every channel; bind it to localhost or a unix socket",
					zap.Stringer("address", addr), zap.String("remote", r.RemoteAddr))
			})
		}
		return answer(w, r)
	}
}

// withApp answers requests of one method, by the running configuration's app.
func withApp(method string, answer func(http.ResponseWriter, *http.Request, active.App) error) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != method {
			return notAllowed(w, r, method)
		}
		app, err := running()
		if err != nil {
			return err
		}
		return answer(w, r, app)
	}
}

// running returns the running configuration's app, or an error with the status for it. While no configuration runs, a retry
// may help, hence 503. A configuration that does not use the hub gets a 404, as if the endpoint were not there.
func running() (active.App, error) {
	app, err := active.Running()
	switch {
	case errors.Is(err, active.ErrNotRunning):
		return app, caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	case err != nil:
		return app, caddy.APIError{HTTPStatus: http.StatusNotFound, Err: err}
	}
	return app, nil
}

func notAllowed(w http.ResponseWriter, r *http.Request, methods string) error {
	w.Header().Set("Allow", methods)
	return caddy.APIError{
		HTTPStatus: http.StatusMethodNotAllowed,
		Err:        fmt.Errorf("method %s is not allowed, only %s", r.Method, methods),
	}
}

// health answers load balancers and other tools that reach the endpoint. Those that do not: see package health.
func health(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return notAllowed(w, r, "GET, HEAD")
	}
	app, err := running()
	if err != nil {
		return err
	}
	if err := app.Broker.Health(); err != nil {
		return caddy.APIError{HTTPStatus: http.StatusServiceUnavailable, Err: err}
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func routes(w http.ResponseWriter, _ *http.Request, app active.App) error {
	return answer(w, slices.Concat([]placement.Description{}, app.Routes)) // an array, also if there are none
}

func totals(w http.ResponseWriter, _ *http.Request, app active.App) error {
	s := app.Hub.Stats()
	var messages uint64 // not the position: that of a broker counts its signs of life, and what other nodes published
	for _, n := range s.Published {
		messages += n
	}
	return answer(w, struct {
		Connections int     `json:"connections"`
		Clients     int     `json:"clients"`
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
		Version     string  `json:"version,omitempty"`

		Broker *brokered.State `json:"broker,omitempty"`
		Nodes  []nodes.Node    `json:"nodes,omitempty"`
	}{
		s.Connections, s.Connections - s.Transports[hub.TransportAdmin], s.Channels, s.Seq, hub.FormatID(s.Epoch, s.Seq), messages,
		s.Bytes, s.Deliveries, s.Written, s.Writes, s.Backlog, s.Kept, s.KeptBytes, time.Since(s.Started).Round(time.Millisecond).Seconds(),
		buildinfo.Read().Version,
		app.Broker.State(), app.Broker.Nodes(),
	})
}

func publishAll(w http.ResponseWriter, r *http.Request, app active.App) error {
	ms, lines, err := read(w, r)
	if err == nil {
		for _, m := range ms {
			m.Source = hub.SourceAdmin
		}
		err = app.Hub.Publish(ms...)
		// The hub knows which message is wrong by its index. Its sender knows it by its line, and blank lines do not
		// count as messages.
		if invalid := new(hub.InvalidError); lines != nil && errors.As(err, &invalid) {
			err = badLine(lines[invalid.Index], err)
		} else if partial, ok := errors.AsType[*broker.PartialError](err); ok {
			return answerPart(w, partial, lines)
		} else if err != nil {
			err = publish.Failed(w, err)
		}
	}
	if err != nil {
		// The admin API takes a status from errors of its own type only. It answers any other error with a 500.
		if e, ok := errors.AsType[*publish.HTTPError](err); ok {
			return caddy.APIError{HTTPStatus: e.Status, Err: e.Err}
		}
		return err
	}
	type published struct {
		ID          string `json:"id"`
		Channel     string `json:"channel"`
		Subscribers int    `json:"subscribers"`
	}
	elsewhere := subscribersElsewhere(r.Context(), app.Broker, ms)
	answers := make([]any, len(ms))
	for i, m := range ms {
		answers[i] = published{m.ID(), m.Channel, m.Subscribers + elsewhere[m.Channel]}
	}
	return answer(w, answers...)
}

// elsewhereTime is how long a publisher waits for what is only for people to see. Its message is published by then.
const elsewhereTime = 100 * time.Millisecond

// subscribersElsewhere returns how many subscribers the channels of messages have on other nodes, if there are any.
func subscribersElsewhere(ctx context.Context, b *brokered.Connection, ms []*hub.Message) map[string]int {
	if !b.Shared() {
		return nil
	}
	counts := make(map[string]int)
	for _, m := range ms { // each channel once
		counts[m.Channel] = 0
	}
	ctx, cancel := context.WithTimeout(ctx, elsewhereTime)
	defer cancel()
	channels := slices.Collect(maps.Keys(counts))
	for i, n := range b.Cluster().Subscribers(ctx, channels) {
		counts[channels[i]] = n
	}
	return counts
}

// answerPart tells a publisher how many of its messages a broker has stored before one failed, so that it need not send
// them again, or can look whether the next ones are stored too if that is unknown. The status is that of the error: the rest
// may be tried again with a 503, and not with a 422.
func answerPart(w http.ResponseWriter, partial *broker.PartialError, lines []int) error {
	err := publish.Failed(w, partial.Err)
	status := http.StatusServiceUnavailable
	if e, ok := errors.AsType[*publish.HTTPError](err); ok {
		status = e.Status
	}
	n := len(partial.Places)
	return answerStatus(w, status, struct {
		Error     string `json:"error"` // where Caddy's errors have it
		Published int    `json:"published"`
	}{fmt.Sprintf("the first %d of %d messages were published, up to line %d; then: %v", n, len(lines), lines[n-1], err), n})
}

// read returns the messages of a request to publish, and their lines if it has them in lines.
func read(w http.ResponseWriter, r *http.Request) (ms []*hub.Message, lines []int, err error) {
	if media, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); media == "application/x-ndjson" {
		switch {
		case r.URL.RawQuery != "":
			return nil, nil, publish.Reject(http.StatusBadRequest,
				"the query %q: of several messages, each line names its own channel and event", r.URL.RawQuery)
		case r.Header.Get("Idempotency-Key") != "":
			return nil, nil, publish.Reject(http.StatusBadRequest, `the header Idempotency-Key: of several messages, each line has its own "key"`)
		}
		body, err := publish.Body(w, r, maxBody)
		if err != nil {
			return nil, nil, err
		}
		return parseLines(body)
	}
	m, err := publish.Message(w, r, maxMessage)
	if err != nil {
		return nil, nil, err
	}
	// A route has channels of its own to choose from, so it is not package publish that fills in the default.
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

// answerStatus writes a value with a status.
func answerStatus(w http.ResponseWriter, status int, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	return json.NewEncoder(w).Encode(v)
}

// Interface guards
var _ caddy.AdminRouter = (*API)(nil)
