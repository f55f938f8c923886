package route

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/eventstream"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
	"github.com/caddy-broadcast/caddy-broadcast/internal/websocket"
)

// servePost publishes the body of a request.
func (route *Route) servePost(w http.ResponseWriter, r *http.Request, c *identity) error {
	if eventstream.WantsV1(r) {
		return route.serveV1(w, r, c)
	}
	if !route.publish {
		return caddyhttp.Error(http.StatusForbidden, errors.New("publishing is off on this route"))
	}
	if wait := route.wait(c); wait > 0 {
		route.hub.Refused(hub.RefusedRate)
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		return caddyhttp.Error(http.StatusTooManyRequests, errors.New("the client publishes faster than the option rate lets it"))
	}
	m, err := publish.Message(w, r, route.maxMessage, route.query...)
	if err != nil {
		return withStatus(err)
	}
	m.Source = Post
	m.Publisher, m.Owner = publish.Namespace(c.user), publish.Owner(c.user, c.remote)
	if m.Channel, err = route.destination(r, m.Channel, c.channels); err != nil {
		return caddyhttp.Error(http.StatusForbidden, err)
	}
	if err := route.hub.Publish(m); err != nil {
		return withStatus(publish.Failed(w, err))
	}
	setJSONHeaders(w.Header())
	return json.NewEncoder(w).Encode(struct {
		ID string `json:"id"`
	}{m.ID()})
}

// destination returns the channel of a message that names one, or none, on a route with these channels.
func (route *Route) destination(r *http.Request, name string, channels []string) (string, error) {
	switch {
	case name == "":
		return channels[0], nil
	case slices.Contains(channels, name):
		return name, nil
	case route.channelFromQuery && name == r.URL.Query().Get("channel"):
		return channels[0], nil // the parameter is a part of the channel's name
	}
	return "", fmt.Errorf("%q is not a channel of this route", name)
}

// serveV1 is servePost for a client of broadcast.v1 with an event stream, which cannot carry what the client sends.
func (route *Route) serveV1(w http.ResponseWriter, r *http.Request, c *identity) error {
	for _, name := range []string{"channel", "event"} {
		if r.URL.Query().Has(name) && !slices.Contains(route.query, name) {
			return caddyhttp.Error(http.StatusBadRequest, fmt.Errorf("the query names a %s: with broadcast.v1 a message names it in the body", name))
		}
	}
	frame, err := publish.Body(w, r, route.sockets.MaxBody())
	if err != nil {
		return withStatus(err)
	}
	request := websocket.Client{
		Subscriber: hub.Subscriber{User: c.user, Remote: c.remote},
		Publish:    route.mayPublish(c),
		MayJoin:    route.mayJoin(c),
	}
	replies := route.sockets.Post(frame, request, func() bool { return route.wait(c) > 0 })
	setJSONHeaders(w.Header())
	_, err = w.Write(replies)
	return err
}

// wait counts a message of a client without a connection, and returns how long the client has to wait. The key of a user
// has a space, which no address has, so that a user cannot spend the tokens of an address by being called like it.
func (route *Route) wait(c *identity) time.Duration {
	if route.posters == nil {
		return 0
	}
	if c.user != "" {
		return route.posters.Wait("user " + c.user)
	}
	return route.posters.Wait(ratelimit.Address(c.remote, route.ipv6Prefix))
}

// withStatus returns an error as Caddy's, with the HTTP status that it has, or 500.
func withStatus(err error) error {
	if e, ok := errors.AsType[*publish.HTTPError](err); ok {
		return caddyhttp.Error(e.Status, e.Err)
	}
	return caddyhttp.Error(http.StatusInternalServerError, err)
}

func setJSONHeaders(h http.Header) {
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
}
