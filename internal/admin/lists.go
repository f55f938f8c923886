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

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/wire"
)

// Of a list so many entries are answered at once, unless the query says how many.
const (
	defaultLimit = 1000
	maxLimit     = 100_000
)

func refused(status int, format string, args ...any) error {
	return caddy.APIError{HTTPStatus: status, Err: fmt.Errorf(format, args...)}
}

func limitOf(query url.Values) (int, error) {
	s := query.Get("limit")
	if s == "" {
		return defaultLimit, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 || n > maxLimit {
		return 0, refused(http.StatusBadRequest, "the limit is %q, must be 1 to %d", s, maxLimit)
	}
	return n, nil
}

// next says where the list goes on (RFC 8288).
func next(w http.ResponseWriter, r *http.Request, after string) {
	query := r.URL.Query()
	query.Set("after", after)
	w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, r.URL.Path, query.Encode()))
}

// channel is a channel as the API shows it.
type channel struct {
	Channel     string         `json:"channel"`
	Subscribers int            `json:"subscribers"`
	History     int            `json:"history"`
	LastID      string         `json:"last_id,omitempty"`
	Users       map[string]int `json:"users,omitempty"`
}

func channelOf(c hub.Channel) channel {
	return channel{Channel: c.Name, Subscribers: c.Subscribers, History: c.History, LastID: c.LastID}
}

func channels(w http.ResponseWriter, r *http.Request) error {
	if err := allow(w, r, http.MethodGet); err != nil {
		return err
	}
	h, err := engine()
	if err != nil {
		return err
	}
	query := r.URL.Query()
	limit, err := limitOf(query)
	if err != nil {
		return err
	}
	list := h.Channels(query.Get("prefix"), query.Get("after"), limit+1)
	if len(list) > limit {
		list = list[:limit]
		next(w, r, list[limit-1].Name)
	}
	answers := make([]channel, len(list))
	for i, c := range list {
		answers[i] = channelOf(c)
	}
	return answer(w, answers)
}

func oneChannel(w http.ResponseWriter, r *http.Request) error {
	if err := allow(w, r, http.MethodGet); err != nil {
		return err
	}
	h, err := engine()
	if err != nil {
		return err
	}
	name := strings.TrimPrefix(r.URL.Path, "/broadcast/channels/")
	c, ok := h.Channel(name)
	if !ok {
		return refused(http.StatusNotFound, "the channel %q has no subscribers and no history", name)
	}
	v := channelOf(c)
	v.Users = h.Users(name)
	return answer(w, v)
}

// connection is a connection as the API shows it.
type connection struct {
	ID        string    `json:"id"`
	User      string    `json:"user,omitempty"`
	Remote    string    `json:"remote"`
	Transport string    `json:"transport"`
	Channels  []string  `json:"channels"`
	Since     time.Time `json:"since"`
	Sent      uint64    `json:"sent"`
	Backlog   int       `json:"backlog"`
}

func parseID(s string) (hub.ConnID, error) {
	id, err := hub.ParseConnID(s)
	if err != nil {
		return 0, refused(http.StatusBadRequest, "%w", err)
	}
	return id, nil
}

func connections(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	f := hub.Filter{User: query.Get("user"), Channel: query.Get("channel")}
	switch r.Method {
	case http.MethodGet:
	case http.MethodDelete:
		if f.User == "" {
			return refused(http.StatusBadRequest, "whose connections? Give ?user= or /broadcast/connections/{id}")
		}
		return kick(w, f)
	default:
		return allow(w, r, "GET, DELETE")
	}
	h, err := engine()
	if err != nil {
		return err
	}
	limit, err := limitOf(query)
	if err != nil {
		return err
	}
	if after := query.Get("after"); after != "" {
		if f.After, err = parseID(after); err != nil {
			return err
		}
	}
	list := h.Connections(f, limit+1)
	if len(list) > limit {
		list = list[:limit]
		next(w, r, list[limit-1].ID.String())
	}
	answers := make([]connection, len(list))
	for i, c := range list {
		answers[i] = connection{c.ID.String(), c.User, c.Remote, c.Transport, c.Channels, c.Since.UTC(), c.Sent, c.Backlog}
	}
	return answer(w, answers)
}

func oneConnection(w http.ResponseWriter, r *http.Request) error {
	if err := allow(w, r, http.MethodDelete); err != nil {
		return err
	}
	id, err := parseID(strings.TrimPrefix(r.URL.Path, "/broadcast/connections/"))
	if err != nil {
		return err
	}
	return kick(w, hub.Filter{ID: id})
}

// kick closes connections with code 1008, policy violation (RFC 6455, section 7.4.1).
func kick(w http.ResponseWriter, f hub.Filter) error {
	h, err := engine()
	if err != nil {
		return err
	}
	n := h.Kick(f, hub.ReasonPolicy, "closed by the administrator")
	if n == 0 {
		return refused(http.StatusNotFound, "there is no such connection")
	}
	return answer(w, struct {
		Closed int `json:"closed"`
	}{n})
}

// stream shows what is published, as it is.
func stream(w http.ResponseWriter, r *http.Request) error {
	if err := allow(w, r, http.MethodGet); err != nil {
		return err
	}
	h, err := engine()
	if err != nil {
		return err
	}
	s := hub.Subscriber{All: true, Remote: r.RemoteAddr}
	if names := r.URL.Query()["channel"]; len(names) > 0 {
		s.All = false
		seen := make(map[string]bool)
		for _, name := range names {
			if err := hub.CheckName(name); err != nil {
				return refused(http.StatusBadRequest, "the channel %w", err)
			}
			if !seen[name] {
				seen[name] = true
				s.Channels = append(s.Channels, name)
			}
		}
	}
	route := eventstream.Route{Hub: h, V1: &hub.ConnOptions{
		Transport:    hub.TransportAdmin,
		Format:       wire.V1Stream{},
		PingInterval: 25 * time.Second,
		WriteTimeout: 10 * time.Second,
		MaxBacklog:   4 << 20,
		OneWay:       true,
	}}
	err = route.AcceptV1(w, r, s, nil, func() {})
	if errors.Is(err, hub.ErrTooManyConnections) {
		return refused(http.StatusServiceUnavailable, "%w", err)
	}
	return err
}
