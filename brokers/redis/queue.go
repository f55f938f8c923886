package redis

import "sync"

// maxQueue is how many bytes may wait for the Sink, and how many are held while the log catches up. It is less than maxMissed,
// so that what did not fit can be read when the Sink has time again.
const maxQueue = 48 << 20

// item is what the receiver takes: a message of a session, or something to do between two of them. Both are in one queue, so
// that something is done after the messages that came before it.
type item struct {
	s             *session
	channel, text string
	do            func()
}

// size estimates the memory of a message. 128 stands for the headers of its strings, and for its place in the queue.
func (it *item) size() int64 { return int64(len(it.channel)+len(it.text)) + 128 }

// queue is what was received and not yet given to the Sink.
type queue struct {
	mu     sync.Mutex
	ready  sync.Cond // with mu: items is not empty, or closed
	items  []item
	bytes  int64
	closed bool
}

func (q *queue) init() { q.ready.L = &q.mu }

// pushMessage adds a message. It is false if the queue is full: the session has to end then, since nothing may be dropped
// silently.
func (q *queue) pushMessage(it item) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes += it.size()
	if q.bytes > maxQueue {
		q.bytes -= it.size()
		return false
	}
	q.items = append(q.items, it)
	if len(q.items) == 1 {
		q.ready.Signal()
	}
	return true
}

// push adds something to do. It is false if the queue is closed. What is to be done has no limit. It is little, and somebody
// waits for each.
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

// take waits for items, and returns all. It swaps its argument for them, so two slices are used in turn. It is false when the
// queue is closed, and its items are to be done first.
func (q *queue) take(spare []item) (items []item, open bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.items) == 0 && !q.closed {
		q.ready.Wait()
	}
	items = q.items
	q.items, q.bytes = spare, 0
	return items, !q.closed
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
