// Package broadcast is a Caddy plugin that pushes messages to every connected browser.
//
// One line in a Caddyfile, "broadcast /ws", makes a route a live channel: what any of its WebSockets sends, and what
// is posted to the route or to Caddy's admin API, reaches every subscriber. All routes of a process share one hub;
// channels, by name, separate audiences.
//
// Other Caddy modules publish with From:
//
//	hub := broadcast.From(ctx) // the caddy.Context that the module is provisioned with
//	id, err := hub.Publish(broadcast.Message{Channel: "news", Data: []byte("hello")})
package broadcast

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/survey"
)

// DefaultChannel is the channel of a route, and of a message, that names none.
const DefaultChannel = hub.DefaultChannel

// ErrFull is returned by Publish while subscribers are being written to more slowly than messages come, and 64 MiB
// are waiting. Nothing was published; it may be tried again.
var ErrFull = hub.ErrFull

// ErrClosed is returned by Publish when the hub has ended: its configuration was unloaded.
var ErrClosed = hub.ErrClosed

// ErrMissing is returned when some of the nodes that share a message broker have not answered. They do what was asked for when they
// have caught up, if that is within a minute.
var ErrMissing = errors.New("nodes have not answered")

// Message is something to publish.
type Message struct {
	// Channel is the name of the channel: 1 to 255 bytes of UTF-8 without control characters. Default: "default".
	Channel string

	// Event names what happened, for subscribers that tell events apart; optional, as long as a channel's name.
	// A WebSocket without a subprotocol does not see it.
	Event string

	// Data is the payload: UTF-8 text, or a JSON value with JSON, or any bytes with Binary. It is the hub's after
	// Publish, not to be changed.
	Data []byte

	// JSON has Data delivered as JSON to clients of broadcast.v1, and as text to others. It must not have more than 60
	// levels, a number beyond the range of a float64, or half of a surrogate pair: some parsers take none of them.
	JSON bool

	// Binary has Data delivered as a binary frame, in base64 where there is no such thing.
	Binary bool

	// Transient messages are not kept in the history. Clients that come back do not get them, and are not notified of a
	// gap. It is for what is out of date by then, such as cursors.
	Transient bool

	// Conflate, if set, is what the message is about, such as "row:7": a client that does not keep up, or that comes
	// later, may get only the newest message with it on the channel. Optional, as long as a channel's name.
	Conflate string
}

// Hub is the hub of the process. It is safe for concurrent use.
type Hub struct {
	hub    *hub.Hub
	survey *survey.Survey
	err    error // why there is none
}

// From returns the hub for a module that is being provisioned with ctx, whether or not the configuration has a route
// that broadcasts. It is good until the module's Cleanup. It never returns nil; if the hub cannot be had, as the
// configuration of the app "broadcast" is wrong, Publish returns why.
func From(ctx caddy.Context) *Hub {
	app, err := ctx.App("broadcast")
	if err != nil {
		return &Hub{err: err}
	}
	a := app.(*App)
	return &Hub{hub: a.hub, survey: a.shared.Survey}
}

// Connections selects connections: those of a user, or the one with an ID. One of the two has to be set.
type Connections struct {
	User string // as the route's option user has it
	ID   string // as lists, events and the hello of broadcast.v1 have it, such as "c12"
}

// Subscribe subscribes the connections to a channel, which may be one that the clients may not join themselves, and returns how many
// are on it then. It concerns those that there are: one that comes back begins with the channels of its route. With a message
// broker, these are on all nodes. ErrMissing is returned with the number if some nodes have not answered.
func (h *Hub) Subscribe(ctx context.Context, c Connections, channel string) (n int, err error) {
	return h.change(ctx, c, hub.DoJoin, channel)
}

// Unsubscribe unsubscribes the connections from a channel, and returns how many were on it. Clients may join again if their route
// lets them. For the rest see Subscribe.
func (h *Hub) Unsubscribe(ctx context.Context, c Connections, channel string) (n int, err error) {
	return h.change(ctx, c, hub.DoLeave, channel)
}

func (h *Hub) change(ctx context.Context, c Connections, do, channel string) (n int, err error) {
	if h.err != nil {
		return 0, h.err
	}
	v, err := h.survey.Change(ctx, hub.Change{Do: do, User: c.User, Connection: c.ID, Channel: channel})
	switch {
	case err != nil:
		return 0, err
	case v.Failed > 0:
		err = fmt.Errorf("%d connections are on too many channels, or there are too many channels", v.Failed)
	case len(v.Missing) > 0:
		err = fmt.Errorf("%w: %s", ErrMissing, strings.Join(v.Missing, ", "))
	}
	return v.Done, err
}

// Close closes the connections, and returns how many there were. The code is that which WebSockets are closed with, from 4000 to 4999,
// or 0 for 1008. After a code from 4400 to 4499 clients of broadcast.v1 do not reconnect on their own. ErrMissing is returned with
// the number if some nodes have not answered.
func (h *Hub) Close(ctx context.Context, c Connections, code uint16) (n int, err error) {
	if h.err != nil {
		return 0, h.err
	}
	if (c.User == "") == (c.ID == "") {
		return 0, errors.New("neither a user nor an ID, or both")
	}
	v, err := h.survey.Kick(ctx, c.ID, c.User, code)
	if err == nil && len(v.Missing) > 0 {
		err = fmt.Errorf("%w: %s", ErrMissing, strings.Join(v.Missing, ", "))
	}
	return v.Closed, err
}

// Publish gives the message its place in the order of all messages, leaves it to be delivered to the channel's
// subscribers, and returns its ID. It does not wait for them. A message that some client could not accept is not
// published, and the error says what is wrong with it.
func (h *Hub) Publish(m Message) (id string, err error) {
	if h.err != nil {
		return "", h.err
	}
	if m.Channel == "" {
		m.Channel = DefaultChannel
	}
	out := &hub.Message{Channel: m.Channel, Event: m.Event, Data: m.Data, Source: hub.SourceGo,
		Transient: m.Transient, Conflate: hub.NewConflateKey(m.Conflate)}
	switch {
	case m.Binary && m.JSON:
		return "", errors.New("the data is either JSON or binary")
	case m.Binary:
		out.Kind = hub.Binary
	case m.JSON:
		out.Kind = hub.JSON
	}
	if err := h.hub.Publish(out); err != nil {
		return "", err
	}
	return out.ID(), nil
}
