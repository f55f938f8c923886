package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddy-broadcast/caddy-broadcast/internal/complaints"
	"github.com/caddy-broadcast/caddy-broadcast/internal/hub"
)

const (
	// maxEntry is the longest entry that is published: as long as the longest message of clients by default, so that each
	// subscriber's backlog has room for it, and so has each broker.
	maxEntry = 64 << 10

	// maxWaiting is how many bytes may wait in a queue: a second of a busy server's access log. It is fixed because nobody
	// could choose it better: if the hub does not take entries for that long, more of them would not help.
	maxWaiting = 1 << 20

	// entryOverhead is about what an entry takes besides its text.
	entryOverhead = 64

	// maxBatch is how many entries are published with one call, so that none holds the hub's lock for long.
	maxBatch = 256
)

// dropped counts the entries of all queues that were dropped.
var dropped atomic.Uint64

// Dropped returns how many log entries were dropped since the process began.
func Dropped() uint64 { return dropped.Load() }

// entry is a log entry, or, without a text, how many were dropped here.
type entry struct {
	text    []byte
	dropped uint64
	at      time.Time // when the first of them was dropped
}

// queue is what waits to be published on a channel.
type queue struct {
	channel    string
	complaints complaints.Complaints

	mu         sync.Mutex // nothing is logged or published while it is held
	entries    []entry
	size       int    // of entries, in bytes
	lost       uint64 // taken from entries, but not published; the next batch begins with their number
	lostAt     time.Time
	publishing bool          // a goroutine does
	idle       chan struct{} // nil, or closed when it does no longer
}

// Write queues an entry, or drops it. It never blocks. It implements io.Writer, as which it is called once for each entry.
func (q *queue) Write(p []byte) (int, error) {
	if causedByReading(p) {
		return len(p), nil
	}
	text := bytes.TrimRight(p, "\n")
	if len(text) == 0 {
		return len(p), nil
	}
	q.mu.Lock()
	if len(text) > maxEntry || q.size+len(text)+entryOverhead > maxWaiting {
		q.dropLocked()
	} else {
		q.entries = append(q.entries, entry{text: bytes.Clone(text)}) // the caller uses its buffer again
		q.size += len(text) + entryOverhead
	}
	q.mu.Unlock()
	q.start()
	return len(p), nil
}

// dropLocked counts an entry that is dropped, at its place among the others. Nothing has to be bounded: two such places
// have an entry between them.
func (q *queue) dropLocked() {
	dropped.Add(1)
	if n := len(q.entries); n > 0 && q.entries[n-1].text == nil {
		q.entries[n-1].dropped++
		return
	}
	q.entries = append(q.entries, entry{dropped: 1, at: time.Now()})
}

// Close implements io.Closer. What waits is still published.
func (q *queue) Close() error {
	forget(q)
	return nil
}

// start has what waits published, if there is a hub and nobody does so yet.
func (q *queue) start() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.publishing && len(q.entries) > 0 && outlet.Load() != nil {
		q.publishing = true
		go q.publish()
	}
}

// publish publishes entries until none waits, or there is no hub. No goroutine waits for more, because Caddy never closes the
// writers of former configurations (it calls OnCancel of a copy of the context: openLogs, logging.go, v2.11.9).
func (q *queue) publish() {
	for {
		h, batch := q.take()
		if batch == nil {
			return
		}
		q.send(h, batch)
	}
}

// published returns a channel that is closed when nothing waits any more, or there is no hub.
func (q *queue) published() <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.idle == nil {
		q.idle = make(chan struct{})
	}
	idle := q.idle
	if !q.publishing {
		q.endLocked()
	}
	return idle
}

// endLocked ends publishing.
func (q *queue) endLocked() {
	if q.publishing = false; q.idle != nil {
		close(q.idle)
		q.idle = nil
	}
}

// take takes the next entries, and the hub to publish them to. Without either, publishing has ended.
func (q *queue) take() (*hub.Hub, []entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	h := outlet.Load()
	if h == nil || len(q.entries) == 0 {
		q.endLocked()
		return nil, nil
	}
	n := min(len(q.entries), maxBatch)
	batch := make([]entry, 0, n+1)
	if q.lost > 0 {
		batch = append(batch, entry{dropped: q.lost, at: q.lostAt})
		q.lost = 0
	}
	for i, e := range q.entries[:n] {
		if e.text != nil {
			q.size -= len(e.text) + entryOverhead
		}
		batch = append(batch, e)
		q.entries[i] = entry{} // the array has it no longer
	}
	q.entries = q.entries[n:]
	return h, batch
}

// send publishes a batch, and waits until that has succeeded or failed. What of it could not be published counts as dropped.
func (q *queue) send(h *hub.Hub, batch []entry) {
	ms := make([]*hub.Message, len(batch))
	skipped := uint64(0)
	for i, e := range batch {
		ms[i] = &hub.Message{Channel: q.channel, Data: e.text, Kind: kindOf(e.text), Source: hub.SourceLog}
		if e.text == nil {
			ms[i].Data = notice(e)
			skipped += e.dropped
		}
	}
	n, err := publish(h, ms)
	if skipped > 0 && n > 0 && q.complaints.Fresh("dropped", time.Now()) {
		logger().Warn("log entries were dropped", q.fields(skipped, nil)...)
	}
	if err == nil {
		return
	}
	failed := uint64(0) // again, or for the first time
	for _, e := range batch[n:] {
		failed += e.dropped
		if e.text != nil {
			failed++
			dropped.Add(1)
		}
	}
	q.mu.Lock()
	if q.lost == 0 {
		q.lostAt = time.Now()
	}
	q.lost += failed
	q.mu.Unlock()
	// While Caddy exits, the hub is closed before the last entries are logged, which is not a fault.
	if !errors.Is(err, hub.ErrClosed) && q.complaints.Fresh(err.Error(), time.Now()) {
		logger().Warn("log entries cannot be published", q.fields(failed, err)...)
	}
}

// notice is the log entry in place of those that were dropped. It looks like Caddy's own, so that whoever reads them can read
// it.
func notice(e entry) []byte {
	return fmt.Appendf(nil, `{"level":"warn","ts":%.3f,"logger":%q,"msg":"log entries were dropped","dropped":%d}`,
		float64(e.at.UnixMilli())/1000, loggerName, e.dropped)
}

// kindOf returns the kind of an entry's text. Encoders other than json can write anything.
func kindOf(text []byte) hub.Kind {
	if text == nil || text[0] == '{' {
		return hub.JSON
	}
	return hub.Text
}
