// Package pool has what all configurations of a process share, so that connections outlive reloads: the hub, what reads for
// its connections, what emits their events, and its connection to a message broker.
package pool

import (
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-broadcast/caddy-broadcast/internal/backend"
	"github.com/caddy-broadcast/caddy-broadcast/internal/brokered"
	"github.com/caddy-broadcast/caddy-broadcast/internal/events"
	"github.com/caddy-broadcast/caddy-broadcast/internal/historyfile"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
	"github.com/caddy-broadcast/caddy-broadcast/internal/logwriter"
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
	File    *historyfile.File

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
		table := socketio.NewTable()
		p := presence.NewTable(h)
		p.Share(b.Cluster())
		return &Shared{
			Hub: h, Poller: socket.NewPoller(), Emitter: events.New(), Broker: b, Survey: survey.New(h, b.Cluster(), p),
			Intake: backend.New(h), SocketIO: table, Presence: p,
			File: historyfile.New(h, socketio.Recovery{Table: table, Hub: h}),
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

// Close closes all connections with 1012 (service restart), spread over a time, and then saves the history.
func (s *Shared) Close(spread time.Duration) {
	if s.File.InUse() {
		s.SocketIO.HandOver()
	}
	logwriter.Flush()
	s.Hub.Close(hub.ReasonRestart, closeText, spread, closeTimeout)
	// Here and not when the last configuration is cleaned up: the module of the storage may be by then.
	s.File.Save()
}

// Destruct closes all connections, which net/http has long forgotten.
func (s *Shared) Destruct() error {
	logwriter.Flush()
	logwriter.Leave(s.Hub)
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
	o.Histories = keepingRules(o, before)
	o.History = max(o.History, before.History)
	o.HistoryBytes = max(o.HistoryBytes, before.HistoryBytes)
	o.HistoryAge = longer(o.HistoryAge, before.HistoryAge)
	if o.MaxMemory = max(o.MaxMemory, before.MaxMemory); before.MaxMemory == 0 {
		o.MaxMemory = 0
	}
	return o
}

// longer returns the longer of two ages. 0 is without end.
func longer(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return 0
	}
	return max(a, b)
}

// keepingRules returns one rule for each pair of one rule of each of two options, so that every channel has the more
// generous of the two that apply to it.
func keepingRules(o, before hub.Config) (rules []hub.HistoryRule) {
	if len(o.Histories)+len(before.Histories) == 0 {
		return nil
	}
	all := func(string) bool { return true }
	for _, a := range append(slices.Clone(o.Histories), hub.HistoryRule{Matches: all, Count: o.History, Age: o.HistoryAge}) {
		for _, b := range append(slices.Clone(before.Histories), hub.HistoryRule{Matches: all, Count: before.History, Age: before.HistoryAge}) {
			rules = append(rules, hub.HistoryRule{
				Matches: func(name string) bool { return a.Matches(name) && b.Matches(name) },
				Count:   max(a.Count, b.Count), Age: longer(a.Age, b.Age),
			})
		}
	}
	return rules
}
