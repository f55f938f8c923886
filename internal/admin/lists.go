package admin

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/survey"
)

// A page of a list has this many entries, unless the query has a limit, which may not be larger than maxLimit.
const (
	defaultLimit = 1000
	maxLimit     = 100_000
)

func reject(status int, format string, args ...any) error {
	return caddy.APIError{HTTPStatus: status, Err: fmt.Errorf(format, args...)}
}

func limitOf(query url.Values) (int, error) {
	s := query.Get("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, reject(http.StatusBadRequest, "the limit is %q, must be 1 to %d", s, maxLimit)
	}
	return n, nil
}

// next sets the Link header to the next page (RFC 8288). The path can have the name of a channel, which may have any characters.
func next(w http.ResponseWriter, r *http.Request, after string) {
	query := r.URL.Query()
	query.Set("after", after)
	w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.EscapedPath(), query.Encode()))
}

// answerPage writes a page of a list, and says in the header where it goes on, and what is missing.
func answerPage[T any](w http.ResponseWriter, r *http.Request, p survey.Page[T], last func(T) string) error {
	if n := len(p.Entries); p.More && n > 0 {
		next(w, r, last(p.Entries[n-1]))
	}
	setMissing(w, p.Missing)
	if p.Entries == nil {
		p.Entries = []T{} // a list without entries is not null
	}
	return answer(w, p.Entries)
}

// setMissing names the nodes that have not answered. Names may have any characters, and a header may not, nor a comma where it
// separates two of them, so they are escaped as in a query.
func setMissing(w http.ResponseWriter, missing []string) {
	if len(missing) == 0 {
		return
	}
	escaped := make([]string, len(missing))
	for i, name := range missing {
		escaped[i] = url.QueryEscape(name)
	}
	w.Header().Set("Broadcast-Missing", strings.Join(escaped, ", "))
}

// failed returns an error of the survey with the status for it.
func failed(err error) error {
	if _, ok := errors.AsType[survey.NoNodeError](err); ok {
		return reject(http.StatusNotFound, "%w", err)
	}
	return reject(http.StatusBadRequest, "%w", err)
}

func channels(w http.ResponseWriter, r *http.Request, app active.App) error {
	query := r.URL.Query()
	limit, err := limitOf(query)
	if err != nil {
		return err
	}
	p, err := app.Survey.Channels(r.Context(), query.Get("node"), query.Get("prefix"), query.Get("after"), limit)
	if err != nil {
		return failed(err)
	}
	return answerPage(w, r, p, func(c survey.Channel) string { return c.Channel })
}

func oneChannel(w http.ResponseWriter, r *http.Request, app active.App) error {
	if name, ok := keptOf(r.URL.Path); ok {
		return kept(w, r, app, name)
	}
	name := strings.TrimPrefix(r.URL.Path, "/broadcast/channels/")
	c, ok, err := app.Survey.Channel(r.Context(), r.URL.Query().Get("node"), name)
	if err != nil {
		return failed(err)
	}
	setMissing(w, c.Missing)
	if !ok {
		return reject(http.StatusNotFound, "the channel %q has no subscribers and no history", name)
	}
	return answer(w, c)
}

func connections(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	f := hub.Filter{User: query.Get("user"), Channel: query.Get("channel"), Clients: query.Has("clients")}
	if r.Method != http.MethodGet && r.Method != http.MethodDelete {
		return notAllowed(w, r, "GET, DELETE")
	}
	app, err := running()
	if err != nil {
		return err
	}
	if r.Method == http.MethodDelete {
		return kick(w, r, app.Survey, "", f.User)
	}
	limit, err := limitOf(query)
	if err != nil {
		return err
	}
	p, err := app.Survey.Connections(r.Context(), query.Get("node"), f, query.Get("after"), limit)
	if err != nil {
		return failed(err)
	}
	return answerPage(w, r, p, func(c survey.Connection) string { return c.ID })
}

func oneConnection(w http.ResponseWriter, r *http.Request, app active.App) error {
	return kick(w, r, app.Survey, strings.TrimPrefix(r.URL.Path, "/broadcast/connections/"), "")
}

// codeOf returns the close code that a kick names, or 0. Those below are not an administrator's to use (RFC 6455, section 7.4.2).
func codeOf(query url.Values) (uint16, error) {
	if !query.Has("code") {
		return 0, nil
	}
	n, err := strconv.ParseUint(query.Get("code"), 10, 16)
	if err != nil || n < hub.MinKickCode || n > hub.MaxKickCode {
		return 0, reject(http.StatusBadRequest, "the code is %q, must be %d to %d", query.Get("code"), hub.MinKickCode, hub.MaxKickCode)
	}
	return uint16(n), nil
}

// kick closes connections with code 1008, policy violation (RFC 6455, section 7.4.1), or with the query's.
func kick(w http.ResponseWriter, r *http.Request, s *survey.Survey, connection, user string) error {
	// An empty filter selects every connection, so a misspelled parameter, or an ID that a script does not have, would close them all.
	if connection == "" && user == "" {
		return reject(http.StatusBadRequest, "specify ?user= or /broadcast/connections/{id}")
	}
	query := r.URL.Query()
	for name := range query {
		// Ignored, it would close others than were meant, or with another code.
		if name != "code" && (name != "user" || connection != "") {
			return reject(http.StatusBadRequest, "the query parameter %q is unknown", name)
		}
	}
	code, err := codeOf(query)
	if err != nil {
		return err
	}
	v, err := s.Kick(r.Context(), connection, user, code)
	if unshared, ok := errors.AsType[*survey.UnsharedError](err); ok {
		// What was done is in it, in the members of the other answers. It may be tried again.
		publish.RetryLater(w)
		return answerStatus(w, http.StatusServiceUnavailable, struct {
			Error string `json:"error"` // where Caddy's errors have it
			survey.Kicked
		}{err.Error(), unshared.Kicked})
	}
	switch {
	case err != nil:
		return reject(http.StatusBadRequest, "%w", err)
	case len(v.Missing) > 0: // they do it when they are back
		return answerStatus(w, http.StatusAccepted, v)
	case v.Closed == 0:
		return reject(http.StatusNotFound, "there is no such connection")
	case !v.Shared:
		return answer(w, struct {
			Closed int `json:"closed"`
		}{v.Closed})
	}
	return answer(w, v)
}

// stream shows messages as they are published.
func stream(w http.ResponseWriter, r *http.Request, app active.App) error {
	s := hub.Subscriber{All: true, Remote: r.RemoteAddr}
	if names := r.URL.Query()["channel"]; len(names) > 0 {
		s.All = false
		seen := make(map[string]bool)
		for _, name := range names {
			if err := hub.CheckName("the channel", name); err != nil {
				return reject(http.StatusBadRequest, "%w", err)
			}
			if !seen[name] {
				seen[name] = true
				s.Channels = append(s.Channels, name)
			}
		}
	}
	endpoint := eventstream.Endpoint{Hub: app.Hub, Offers: []eventstream.Offer{{Protocol: v1.Protocol{}, Options: &hub.ConnOptions{
		// The intervals are the defaults of a route. The backlog is larger than a route's, because on all channels
		// together more is published than any client of a route gets, and there are few such streams.
		Transport:    hub.TransportAdmin,
		Format:       v1.StreamFormat{},
		PingInterval: 25 * time.Second,
		WriteTimeout: 10 * time.Second,
		MaxBacklog:   4 << 20,
		OneWay:       true,
		NoSubscribe:  true,
	}}}}
	err := endpoint.Accept(w, r, &protocol.Request{Subscriber: s}, func() {})
	// An admin stream counts against max_connections, since it takes as much memory as any other.
	if errors.Is(err, hub.ErrTooManyConnections) {
		return reject(http.StatusServiceUnavailable, "%w", err)
	}
	return err
}
