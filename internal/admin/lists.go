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
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	v1 "github.com/caddy-broadcast/caddy-broadcast/internal/protocol/v1"
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

// next sets the Link header to the next page (RFC 8288).
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

func channels(w http.ResponseWriter, r *http.Request, h *hub.Hub) error {
	query := r.URL.Query()
	limit, err := limitOf(query)
	if err != nil {
		return err
	}
	// One more than a page has shows whether there is a next page, without counting them all.
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

func oneChannel(w http.ResponseWriter, r *http.Request, h *hub.Hub) error {
	name := strings.TrimPrefix(r.URL.Path, "/broadcast/channels/")
	c, ok := h.Channel(name)
	if !ok {
		return reject(http.StatusNotFound, "the channel %q has no subscribers and no history", name)
	}
	v := channelOf(c)
	v.Users = h.Users(name)
	return answer(w, v)
}

// Programs read what these structs say. They are not the hub's own types, so that those can change.

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
		return 0, reject(http.StatusBadRequest, "%w", err)
	}
	return id, nil
}

func connections(w http.ResponseWriter, r *http.Request) error {
	query := r.URL.Query()
	f := hub.Filter{User: query.Get("user"), Channel: query.Get("channel")}
	if r.Method != http.MethodGet && r.Method != http.MethodDelete {
		return notAllowed(w, r, "GET, DELETE")
	}
	// An empty filter selects every connection, so a misspelled parameter would close them all.
	if r.Method == http.MethodDelete && f.User == "" {
		return reject(http.StatusBadRequest, "specify ?user= or /broadcast/connections/{id}")
	}
	h, err := runningHub()
	if err != nil {
		return err
	}
	if r.Method == http.MethodDelete {
		return kick(w, h, f)
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
		answers[i] = connection{c.ID.String(), c.User, c.Remote, c.Transport, c.Channels, c.ConnectedAt.UTC(), c.Sent, c.Backlog}
	}
	return answer(w, answers)
}

func oneConnection(w http.ResponseWriter, r *http.Request, h *hub.Hub) error {
	id, err := parseID(strings.TrimPrefix(r.URL.Path, "/broadcast/connections/"))
	if err != nil {
		return err
	}
	return kick(w, h, hub.Filter{ID: id})
}

// kick closes connections with code 1008, policy violation (RFC 6455, section 7.4.1).
func kick(w http.ResponseWriter, h *hub.Hub, f hub.Filter) error {
	n := h.Kick(f, hub.ReasonPolicy, "closed by the administrator")
	if n == 0 {
		return reject(http.StatusNotFound, "there is no such connection")
	}
	return answer(w, struct {
		Closed int `json:"closed"`
	}{n})
}

// stream shows messages as they are published.
func stream(w http.ResponseWriter, r *http.Request, h *hub.Hub) error {
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
	endpoint := eventstream.Endpoint{Hub: h, Offers: []eventstream.Offer{{Protocol: v1.Protocol{}, Options: &hub.ConnOptions{
		// The intervals are the defaults of a route. The backlog is larger than a route's, because on all channels
		// together more is published than any client of a route gets, and there are few such streams.
		Transport:    hub.TransportAdmin,
		Format:       v1.StreamFormat{},
		PingInterval: 25 * time.Second,
		WriteTimeout: 10 * time.Second,
		MaxBacklog:   4 << 20,
		OneWay:       true,
	}}}}
	err := endpoint.Accept(w, r, &protocol.Request{Subscriber: s}, func() {})
	// An admin stream counts against max_connections, since it takes as much memory as any other.
	if errors.Is(err, hub.ErrTooManyConnections) {
		return reject(http.StatusServiceUnavailable, "%w", err)
	}
	return err
}
