package logwriter

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

// outlet is the hub that entries are published to, or nil. It is set when the app has started: entries that were published
// earlier, while the configuration was being loaded, would not be kept, or not go to the broker.
var outlet atomic.Pointer[hub.Hub]

// queues are all that are open. There is one for each channel that a configuration ever had a log for.
var queues struct {
	sync.Mutex
	open []*queue
}

// open returns a queue for a channel.
func open(channel string) *queue {
	q := &queue{channel: channel}
	queues.Lock()
	defer queues.Unlock()
	queues.open = append(queues.open, q)
	return q
}

// forget removes a queue.
func forget(q *queue) {
	queues.Lock()
	defer queues.Unlock()
	queues.open = slices.DeleteFunc(queues.open, func(o *queue) bool { return o == q })
}

// Use has entries published to a hub from now on. What was logged before follows.
func Use(h *hub.Hub) {
	outlet.Store(h)
	queues.Lock()
	defer queues.Unlock()
	for _, q := range queues.open {
		q.start()
	}
}

// flushTime is how long Flush waits. Usually nothing waits to be published for longer than a moment. If it does, as while a broker
// is down, Caddy's exit should not take much longer for it.
const flushTime = time.Second

// Flush waits until what was logged is published, or for flushTime.
func Flush() {
	queues.Lock()
	open := slices.Clone(queues.open)
	queues.Unlock()
	over := time.NewTimer(flushTime)
	defer over.Stop()
	for _, q := range open {
		select {
		case <-q.published():
		case <-over.C:
			return
		}
	}
}

// Leave ends Use for a hub that is being closed. Entries wait for the next one.
func Leave(h *hub.Hub) { outlet.CompareAndSwap(h, nil) }
