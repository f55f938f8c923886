package hub

import (
	"sync"
	"sync/atomic"
	"time"
)

// flushers write what a loop cannot write itself. They are a few goroutines that stay, and take one of the loop's connections
// after the other: all that HTTP/2 and HTTP/3 clients are sent, and what the sockets of others do not accept at once. Starting
// one for each flush, and growing its stack to what encryption needs, cost as much as the encryption.
// When they make no progress, because their peers accept nothing, more of them are started, so that a slow peer delays
// others only for a moment.
type flushers struct {
	hub      *Hub
	mu       sync.Mutex
	work     sync.Cond // on mu: the queue has something
	queue    []*Conn
	finished uint64 // how many flushes have ended
	free     int    // how many wait for work
	running  int    // how many there are
	watching bool
	closed   chan struct{}

	waiting atomic.Int32 // how many are in a write that waits for its peer
}

const (
	// watchInterval is how often the progress is checked, and so about how long connections wait for others that are stuck.
	watchInterval = time.Millisecond

	// busyFlushers is how many connections are finished in that time if the flushers make progress.
	busyFlushers = 16
)

// flusherCost is about what a flusher takes that is stuck in TLS: its stack, and the chunk that it is writing.
const flusherCost = 32 << 10

// maxFree is how many flushers of a loop stay when there is no work. There is one loop per core, so more flushers could hardly run
// at the same time. While some are stuck, watch starts others.
const maxFree = 1

// init makes flushers usable.
func (f *flushers) init(h *Hub) {
	f.hub = h
	f.work.L = &f.mu
	f.closed = make(chan struct{})
}

// flush has the connections flushed.
func (f *flushers) flush(cs ...*Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, cs...)
	for range min(len(cs), f.free) {
		f.work.Signal()
	}
	// It starts with the work and ends with it, so that an idle hub has no ticker.
	if !f.watching {
		f.watching = true
		if f.free == 0 {
			f.startLocked()
		}
		go f.watch()
	}
}

// startLocked starts a flusher. Those beyond maxFree count as memory, because they are there for others that are stuck.
func (f *flushers) startLocked() {
	if f.running++; f.running > maxFree {
		f.hub.held.Add(flusherCost)
	}
	go f.run()
}

// run flushes one connection after the other.
func (f *flushers) run() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		for len(f.queue) == 0 {
			if f.free == maxFree || f.ended() {
				if f.running--; f.running >= maxFree {
					f.hub.held.Add(-flusherCost)
				}
				return
			}
			f.free++
			f.work.Wait()
			f.free--
		}
		c := f.queue[0]
		f.queue[0] = nil
		// What a burst needed is freed.
		if f.queue = f.queue[1:]; len(f.queue) == 0 {
			f.queue = nil
		}
		f.mu.Unlock()
		c.flush()
		f.mu.Lock()
		f.finished++
	}
}

// write has a sink write p, and wait for its peer.
func (f *flushers) write(to Sink, p []byte, timeout time.Duration) (int, error) {
	f.waiting.Add(1)
	defer f.waiting.Add(-1)
	return to.Write(p, timeout)
}

// watch starts flushers, twice as many each time, as long as those that there are make no progress because they are stuck. If one is
// working, more would only compete with it, and with publishers, for the cores. When thousands of clients resume at once, all flushers
// work and none is stuck. watch ends when there is no work.
func (f *flushers) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	more := 1
	for last := uint64(0); ; {
		select {
		case <-ticker.C:
		case <-f.closed:
			return
		}
		f.mu.Lock()
		if len(f.queue) == 0 {
			f.watching = false
			f.mu.Unlock()
			return
		}
		if f.finished-last >= busyFlushers || f.running-int(f.waiting.Load()) >= maxFree {
			more = 1
		} else {
			for n := range min(more, len(f.queue)) {
				if f.running > maxFree && f.hub.crowded(flusherCost) {
					more = max(1, n/2) // others end as room is made
					break
				}
				f.startLocked()
			}
			more *= 2
		}
		last = f.finished
		f.mu.Unlock()
		f.hub.checkMemory()
	}
}

// close ends the flushers as soon as they have no work.
func (f *flushers) close() {
	f.mu.Lock()
	close(f.closed)
	f.work.Broadcast()
	f.mu.Unlock()
}

// ended reports whether the hub is closed.
func (f *flushers) ended() bool {
	select {
	case <-f.closed:
		return true
	default:
		return false
	}
}
