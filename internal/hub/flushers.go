package hub

import (
	"runtime"
	"sync"
	"time"
)

// flushers write what the loops cannot write by themselves. They are a few goroutines that stay, which take one
// connection after the other: to start one each time, and grow its stack to what TLS needs, cost as much as the
// encryption. When they do not get on, as their peers take nothing, others are started beside them, so a peer that is
// slow holds up nobody for more than a moment.
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
}

const (
	// watchInterval is how long a connection at most waits for others that are stuck, but for the next.
	watchInterval = time.Millisecond

	// busyFlushers finish at least so many connections in that time.
	busyFlushers = 16
)

// flusherCost is about what a flusher takes that is stuck in TLS: its stack, and the chunk that it writes.
const flusherCost = 32 << 10

// maxFree is how many flushers stay.
var maxFree = runtime.GOMAXPROCS(0)

// flush has the connections flushed.
func (f *flushers) flush(cs ...*Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.queue = append(f.queue, cs...)
	for range min(len(cs), f.free) {
		f.work.Signal()
	}
	if !f.watching {
		f.watching = true
		if f.free == 0 {
			f.start()
		}
		go f.watch()
	}
}

// start starts a flusher. Those that are more than stay count as memory, as they are stuck. The caller holds f.mu.
func (f *flushers) start() {
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
		if f.queue = f.queue[1:]; len(f.queue) == 0 {
			f.queue = nil
		}
		f.mu.Unlock()
		c.flush()
		f.mu.Lock()
		f.finished++
	}
}

// watch starts flushers, more and more of them, as long as those that there are do not get on. It ends with the work.
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
		if f.finished-last >= busyFlushers {
			more = 1
		} else {
			for n := range min(more, len(f.queue)) {
				if n > 0 && f.hub.crowded(flusherCost) {
					more = n // others end as room is made
					break
				}
				f.start()
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

func (f *flushers) ended() bool {
	select {
	case <-f.closed:
		return true
	default:
		return false
	}
}
