// Package events connects the hub to Caddy's events: it emits what happens to connections, and publishes what others
// emit.
package events

import (
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"go.uber.org/zap"

	"github.com/caddy-broadcast/caddy-broadcast/internal/active"
)

// Names of the events.
const (
	Subscribed   = "broadcast.subscribed"   // a connection is on channels: its first ones, or one more
	Unsubscribed = "broadcast.unsubscribed" // it is not on them any more
	Closed       = "broadcast.closed"       // it has ended
)

// maxWaiting is how many events may wait for handlers.
const maxWaiting = 1024

// Emitter emits events, one after the other, beside those that have them: when handlers are slow, events are dropped
// and counted.
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

// Emit leaves an event to be emitted. It does not wait.
func (e *Emitter) Emit(name string, data map[string]any) {
	select {
	case e.waiting <- event{name, data}:
	default:
		e.dropped.Add(1)
	}
}

// Dropped returns how many events were not emitted, as too many were waiting.
func (e *Emitter) Dropped() uint64 { return e.dropped.Load() }

// Close ends the emitter. What waits is dropped.
func (e *Emitter) Close() { close(e.ended) }

func (e *Emitter) run() {
	told := uint64(0) // how many of the dropped were logged
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
			if n := e.Dropped(); n > told && len(e.waiting) == 0 { // once a burst
				ctx.Logger().Warn("events were dropped, as their handlers are slow", zap.Uint64("dropped", n-told))
				told = n
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
