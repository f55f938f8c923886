package nats

import (
	"sync"

	natsgo "github.com/nats-io/nats.go"
)

// maxQueue is how many bytes may wait for the Sink, and how many are held while the log catches up. It is less than maxMissed,
// so that what did not fit can be read when the Sink has time again.
const maxQueue = 48 << 20

// item is what the receiver takes: a message, or something to do between two of them.
// Both are in one queue, so that something is done after the messages that came before it.
type item struct {
	m  *natsgo.Msg
	do func()
}

// queue is what was received and not yet given to the Sink.
// The mover and anybody with something to do push, and only the receiver takes. So Signal wakes the right one.
type queue struct {
	mu       sync.Mutex
	ready    sync.Cond // with mu: items is not empty, or closed
	items    []item
	bytes    int64
	overflow bool // messages were dropped
	closed   bool
}

func (q *queue) init() { q.ready.L = &q.mu }

// pushMessage adds a message, unless the queue is full, where all of its messages are dropped: the log has to catch up then.
func (q *queue) pushMessage(m *natsgo.Msg) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes += size(m)
	if q.bytes > maxQueue {
		// All and not only the newest: the log has to read the rest from the stream anyway, and what is left would only
		// be held meanwhile. What is to be done stays, since somebody waits for it.
		q.overflow, q.bytes = true, 0
		kept := q.items[:0]
		for _, it := range q.items {
			if it.do != nil {
				kept = append(kept, it)
			}
		}
		clear(q.items[len(kept):])
		q.items = kept
	} else {
		q.items = append(q.items, item{m: m})
	}
	q.ready.Signal()
}

// push adds something to do. It is false if the queue is closed.
// What is to be done has no limit. It is little, and somebody waits for each.
func (q *queue) push(do func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return false
	}
	q.items = append(q.items, item{do: do})
	q.ready.Signal()
	return true
}

// take waits for items, and returns all, and whether messages were dropped before them. It swaps its argument for them. It
// is false when the queue is closed, and its items are to be done first.
// So two slices are used in turn, and nothing is allocated.
func (q *queue) take(spare []item) (items []item, overflow, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed && !q.overflow {
		q.ready.Wait()
	}
	items, overflow = q.items, q.overflow
	q.items, q.bytes, q.overflow = spare, 0, false
	return items, overflow, !q.closed
}

// size returns how many bytes of messages wait. Status shows it.
func (q *queue) size() int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.bytes
}

// close ends the queue. What was pushed before is still done, because others wait for it.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.ready.Broadcast()
}

// size estimates the memory of a message: its data, subject and headers, and the library's structures.
// 512 stands for the structures: natsgo.Msg, and a map of the six headers that a message has when it is republished.
func size(m *natsgo.Msg) int64 { return int64(len(m.Data)+len(m.Subject)) + 512 }
