// Package events connects the hub to Caddy's events. It emits events about connections, and has an event handler that
// publishes the events of others.
package events

import (
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
)

// Names of the emitted events.
const (
	Subscribed   = "broadcast.subscribed"   // a connection subscribed to its first channels, or to one more
	Unsubscribed = "broadcast.unsubscribed" // it unsubscribed from one channel, or from all
	Closed       = "broadcast.closed"       // it ended
)

// maxWaiting is how many events may wait for handlers: enough for a burst of connections, at a few hundred bytes each.
const maxWaiting = 1024

// Emitter emits events one after another, in a goroutine of its own. The hub's loops must not wait for event handlers, so when
// handlers are slow, events are dropped and counted.
type Emitter struct {
	waiting chan event
	ended   chan struct{}
	dropped atomic.Uint64
}

type event struct {
	name string
	data map[string]any
}

// New starts an emitter.
func New() *Emitter {
	e := &Emitter{waiting: make(chan event, maxWaiting), ended: make(chan struct{})}
	go e.run()
	return e
}

// HasListeners reports whether any handler listens to an event. If not, the event need not be built.
func (e *Emitter) HasListeners(name string) bool {
	_, app := current()
	return app != nil && app.ShouldEmit(name)
}

// Emit queues an event, or drops it if the queue is full. It does not block.
func (e *Emitter) Emit(name string, data map[string]any) {
	select {
	case e.waiting <- event{name, data}:
	default:
		e.dropped.Add(1)
	}
}

// Dropped returns how many events were dropped because the queue was full.
func (e *Emitter) Dropped() uint64 { return e.dropped.Load() }

// Close ends the emitter. Queued events are dropped.
func (e *Emitter) Close() { close(e.ended) }

func (e *Emitter) run() {
	logged := uint64(0) // how many dropped events have been logged
	for {
		select {
		case <-e.ended:
			return
		case v := <-e.waiting:
			ctx, app := current()
			if app == nil {
				continue
			}
			app.Emit(ctx, v.name, v.data)
			if n := e.Dropped(); n > logged && len(e.waiting) == 0 { // once per burst
				ctx.Logger().Warn("events were dropped because their handlers are slow", zap.Uint64("dropped", n-logged))
				logged = n
			}
		}
	}
}

// current returns the running configuration's events app, and the context of the module that events come from. It is
// looked up for each event, because connections outlive configurations.
func current() (caddy.Context, *caddyevents.App) {
	running, err := active.Running()
	if err != nil {
		return caddy.Context{}, nil
	}
	app, err := caddy.ActiveContext().AppIfConfigured("events")
	if err != nil {
		return caddy.Context{}, nil
	}
	events, _ := app.(*caddyevents.App)
	return running.Context, events
}
