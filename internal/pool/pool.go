// Package pool has what all configurations of a process share, so that connections outlive reloads: the hub, what reads for
// its connections, what emits their events, and its connection to a message broker.
package pool

import (
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/backend"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokered"
	"github.com/caddy-broadcast/caddy-broadcast/internal/events"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/presence"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socket"
	"github.com/caddy-broadcast/caddy-broadcast/internal/socketio"
	"github.com/caddy-broadcast/caddy-broadcast/internal/survey"
)

// closeTimeout is how long the last configuration that uses the hub waits for clients to say goodbye.
const closeTimeout = 2 * time.Second

// closeText is what WebSockets are told when the hub ends.
const closeText = "service restart"

// Shared is what the configurations share.
type Shared struct {
	Hub     *hub.Hub
	Poller  *socket.Poller
	Emitter *events.Emitter
	Broker  *brokered.Connection
	Survey  *survey.Survey

	Intake   *backend.Intake // of what backends publish
	Presence *presence.Table
	SocketIO *socketio.Table // of the sessions that poll, which are not connections that could outlive a reload by themselves
}

// shared holds it while any loaded configuration uses it.
var shared = caddy.NewUsagePool()

const key = "hub"

// Acquire returns what is shared, and makes it for the first configuration. The configuration calls release when it ends;
// when the last one has, the hub is closed. More calls of release do nothing.
func Acquire() (s *Shared, release func() error, err error) {
	value, _, err := shared.LoadOrNew(key, func() (caddy.Destructor, error) {
		h := hub.New(hub.Config{})
		b := brokered.New(h)
		p := presence.NewTable(h)
		p.Share(b.Cluster())
		return &Shared{
			Hub: h, Poller: socket.NewPoller(), Emitter: events.New(), Broker: b, Survey: survey.New(h, b.Cluster(), p),
			Intake: backend.New(h), SocketIO: socketio.NewTable(), Presence: p,
		}, nil
	})
	if err != nil {
		return nil, nil, err
	}
	return value.(*Shared), sync.OnceValue(func() error {
		_, err := shared.Delete(key)
		return err
	}), nil
}

// Close closes all connections with 1012 (service restart), spread over a time.
func (s *Shared) Close(spread time.Duration) {
	s.Hub.Close(hub.ReasonRestart, closeText, spread, closeTimeout)
}

// Destruct closes all connections, which net/http has long forgotten.
func (s *Shared) Destruct() error {
	s.Intake.Close()
	s.Close(0)
	s.Broker.Close()
	s.SocketIO.Close()
	s.Poller.Close()
	s.Emitter.Close()
	return nil
}

// Keeping returns options with the more generous bounds of the two for what is kept.
func Keeping(o, before hub.Config) hub.Config {
	o.History = max(o.History, before.History)
	o.HistoryBytes = max(o.HistoryBytes, before.HistoryBytes)
	if o.HistoryAge = max(o.HistoryAge, before.HistoryAge); before.HistoryAge == 0 {
		o.HistoryAge = 0
	}
	if o.MaxMemory = max(o.MaxMemory, before.MaxMemory); before.MaxMemory == 0 {
		o.MaxMemory = 0
	}
	return o
}
