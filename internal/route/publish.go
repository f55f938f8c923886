package route

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/protocol"
	"github.com/caddy-broadcast/caddy-broadcast/internal/publish"
	"github.com/caddy-broadcast/caddy-broadcast/internal/ratelimit"
)

// servePost publishes the body of a request.
func (route *Route) servePost(w http.ResponseWriter, r *http.Request, c *identity) error {
	// Before the option publish is looked at, because such a protocol has an error of its own for it.
	if r.URL.RawQuery != "" { // which most do not have, and reading it costs an allocation
		if p, ok := Protocols.Queried(r.URL.Query()).(protocol.Poster); ok {
			return route.servePoster(w, r, c, p)
		}
	}
	if !route.publish {
		return caddyhttp.Error(http.StatusForbidden, errors.New("publishing is off on this route"))
	}
	if route.posters != nil && c.user == "" {
		route.warnOfProxy(r)
	}
	// Before the body is read: a client that is too fast should not cost the reading too.
	if wait := route.wait(c.user, c.remote); wait > 0 {
		route.hub.CountRejected(hub.LimitRate)
		// Rounded up, because the header has whole seconds (RFC 9110, section 10.2.3), and a client that comes too
		// early is rejected again.
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		return caddyhttp.Error(http.StatusTooManyRequests, errors.New("the client publishes faster than the option rate lets it"))
	}
	m, err := publish.Message(w, r, route.maxMessage, route.query...)
	if err != nil {
		return withStatus(err)
	}
	m.Source = Post
	if m.Key != "" {
		// Not for the client to say: the keys of one user must not meet those of another.
		m.Publisher, m.Owner = publish.Namespace(c.user), publish.Owner(c.user, c.remote)
	}
	// The answer is the same whether others have such a channel or nobody has, so it tells nothing about other
	// routes.
	if m.Channel, err = route.destination(r, m.Channel, c.channels); err != nil {
		return caddyhttp.Error(http.StatusForbidden, err)
	}
	// Not PublishWait: a waiting handler would hold the request's memory, and the client can send it again.
	if err := route.hub.Publish(m); err != nil {
		return withStatus(publish.Failed(w, err))
	}
	return respondID(w, m)
}

// respondID responds with a message's ID, as JSON. It does not say how many subscribers there are, as the admin API does: how
// many others there are is not every client's business.
func respondID(w http.ResponseWriter, m *hub.Message) error {
	// One array for both, and not one that requests share: Caddy's directive header changes values in place.
	values := []string{"application/json", "no-store"}
	h := w.Header()
	h["Content-Type"] = values[0:1:1]
	// A response to POST may be cached if it says so (RFC 9110, section 9.3.3). An ID is that of one message.
	h["Cache-Control"] = values[1:2:2]
	// Written by hand, because an ID has only letters, digits and a hyphen, and an encoder would take three allocations.
	_, err := w.Write(append(m.AppendID(append(make([]byte, 0, 96), `{"id":"`...)), "\"}\n"...))
	return err
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

// servePoster is servePost for a client of a protocol whose event stream cannot carry what the client sends.
func (route *Route) servePoster(w http.ResponseWriter, r *http.Request, c *identity, p protocol.Poster) error {
	// Ignored, they would let the message go to another channel than the sender meant.
	for _, name := range publish.Parameters {
		if r.URL.Query().Has(name) && !slices.Contains(route.query, name) {
			return caddyhttp.Error(http.StatusBadRequest, fmt.Errorf("the query names a %s: with %s a message names it in the body", name, p.Name()))
		}
	}
	body, err := publish.Body(w, r, int64(p.MaxReceived(int(route.maxMessage))))
	if err != nil {
		return withStatus(err)
	}
	request := route.request(r, c, hub.Subscriber{User: c.user, Remote: c.remote})
	user, remote := c.user, c.remote // c itself would then be in the heap for every request
	return p.Post(w, route.sockets.Endpoint, request, body, func() bool { return route.wait(user, remote) > 0 })
}

// wait counts a message of a client without a connection, and returns how long the client has to wait. The key of a user
// has a space, which no address has, so that a user cannot spend the tokens of an address by being called like it.
func (route *Route) wait(user, remote string) time.Duration {
	if route.posters == nil {
		return 0
	}
	if user != "" {
		return route.posters.Wait("user " + user)
	}
	return route.posters.Wait(strings.Clone(ratelimit.Address(remote, route.ipv6Prefix)))
}

// withStatus returns an error as Caddy's, with the HTTP status that it has, or 500.
func withStatus(err error) error {
	if e, ok := errors.AsType[*publish.HTTPError](err); ok {
		return caddyhttp.Error(e.Status, e.Err)
	}
	return caddyhttp.Error(http.StatusInternalServerError, err)
}
